-- Binds a device: KEYS[1] the user's hash of device -> record.
-- ARGV: device, record, policy, routes at most, seconds to keep, channel,
-- then the gateways that are known to be dead.
-- A record is login (16 hex digits), connection (32), platform; one that is
-- no more than a login is a device that has left: older logins of it are stale.
local key, device, new, policy = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local login, connection, platform = new:sub(1, 16), new:sub(17, 48), new:sub(49)
local void = {}
for i = 7, #ARGV do void[ARGV[i]] = true end

local records = redis.call('HGETALL', key)
local replaced, leaving, dead, staying, left = {}, {}, {}, {}, {}
for i = 1, #records, 2 do
  local name, old = records[i], records[i + 1]
  local old_login, gateway = old:sub(1, 16), old:sub(17, 24)
  if #old == 16 then
    if name == device and old_login >= login then return {'stale'} end
    if name ~= device then left[#left + 1] = {old_login, name} end
  elseif name == device or policy == 'single'
    or (policy == 'platform' and old:sub(49) == platform) then
    if old_login > login then return {'stale'} end
    if name ~= device then leaving[#leaving + 1] = {old_login, name} end
    if old:sub(17, 48) ~= connection then
      replaced[#replaced + 1] = name
      replaced[#replaced + 1] = old
    end
  elseif void[gateway] then
    dead[#dead + 1] = name
  else
    staying[#staying + 1] = gateway
  end
end
if #staying >= tonumber(ARGV[4]) then
  table.insert(staying, 1, 'full')
  return staying
end

for _, name in ipairs(dead) do redis.call('HDEL', key, name) end
for _, it in ipairs(leaving) do
  redis.call('HSET', key, it[2], it[1])
  left[#left + 1] = it
end
-- Devices that have left are remembered up to a number, the latest logins first.
table.sort(left, function(a, b) return a[1] > b[1] end)
for i = 17, #left do redis.call('HDEL', key, left[i][2]) end
redis.call('HSET', key, device, new)
redis.call('EXPIRE', key, ARGV[5])
staying[#staying + 1] = new:sub(17, 24)
redis.call('PUBLISH', ARGV[6], table.concat(staying))
table.insert(replaced, 1, 'bound')
return replaced
