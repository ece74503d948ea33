-- KEYS: stream, lease. ARGV: token, former token, 1 if down.
local holder = redis.call('GET', KEYS[2])
if not holder or (holder ~= ARGV[1] and holder ~= ARGV[2]) then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
return 1
