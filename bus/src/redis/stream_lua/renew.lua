-- Returns -1 if the lease isn't ours, else entries held and pending.
-- KEYS: stream, lease. ARGV: token, former token, lease ms, 1 if down.
local holder = redis.call('GET', KEYS[2])
if not holder or (holder ~= ARGV[1] and holder ~= ARGV[2]) then return {-1, 0} end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[4] == '1' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
local pending = redis.pcall('XPENDING', KEYS[1], 'sluice')
return {redis.call('XLEN', KEYS[1]), pending.err and 0 or pending[1]}
