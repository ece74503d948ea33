-- The gateways that live, each followed by the rest of its lease in ms.
-- KEYS[1] as in lease.lua.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = {}
local lives = redis.call('HGETALL', KEYS[1])
for i = 1, #lives, 2 do
  local rest_ms = tonumber(lives[i + 1]:match('^%d+')) - now_ms
  if rest_ms > 0 then
    alive[#alive + 1] = lives[i]
    alive[#alive + 1] = rest_ms
  end
end
return alive
