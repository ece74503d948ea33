-- Says a bind again: KEYS[1] the user's hash; ARGV: device, record, seconds to
-- keep, channel, and a gateway that is known to be dead ('' for none).
-- Answers '' if it stands, 'left' if the device has left since, or else the
-- gateway that holds the device with a later login.
local key, device, again = KEYS[1], ARGV[1], ARGV[2]
local login, keep_s = again:sub(1, 16), tonumber(ARGV[3])
local old = redis.call('HGET', key, device)
if old and old:sub(17, 48) == again:sub(17, 48) then
  if old:sub(1, 16) < login then redis.call('HSET', key, device, again) end
  if redis.call('TTL', key) < keep_s / 2 then redis.call('EXPIRE', key, keep_s) end
  return ''
end
if old and old:sub(1, 16) >= login then
  if #old == 16 then return 'left' end
  if old:sub(17, 24) ~= ARGV[5] then return old:sub(17, 24) end
end
redis.call('HSET', key, device, again)
redis.call('EXPIRE', key, keep_s)
local gateways = {}
for _, record in ipairs(redis.call('HVALS', key)) do
  if #record > 16 then gateways[#gateways + 1] = record:sub(17, 24) end
end
redis.call('PUBLISH', ARGV[4], table.concat(gateways))
return ''
