-- KEYS: stream, lease. ARGV: token, former token, lease ms, 1 if down.
local holder = redis.call('GET', KEYS[2])
if not holder or (holder ~= ARGV[1] and holder ~= ARGV[2]) then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if ARGV[4] == '1' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
