-- Removes a device's route if it is still this connection's.
-- KEYS[1] the user's hash; ARGV: device, connection, seconds to keep, channel.
-- What stays is the login, so that a late repeat of its bind is stale.
local key, device = KEYS[1], ARGV[1]
local old = redis.call('HGET', key, device)
if not old or old:sub(17, 48) ~= ARGV[2] then return 0 end
redis.call('HSET', key, device, old:sub(1, 16))
redis.call('EXPIRE', key, ARGV[3])
local gateways = {}
for _, record in ipairs(redis.call('HVALS', key)) do
  if #record > 16 then gateways[#gateways + 1] = record:sub(17, 24) end
end
redis.call('PUBLISH', ARGV[4], table.concat(gateways))
return 1
