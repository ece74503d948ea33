-- Takes the lease if nobody has it. A down stream begins empty with each owner.
-- KEYS: stream, lease. ARGV: token, lease ms, 1 if down.
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return {'HELD', redis.call('PTTL', KEYS[2])} end
if not holder then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
end
redis.pcall('XGROUP', 'CREATE', KEYS[1], 'sluice', '0', 'MKSTREAM')
if ARGV[3] == '1' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {'OK'}
