-- Registers or renews a gateway's life: KEYS[1] the hash of gateway ->
-- 'end in Unix ms, holder'. ARGV: gateway, ttl in ms, holder, '1' if the holder
-- believes that it has the lease.
local key, gateway, holder = KEYS[1], ARGV[1], ARGV[3]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local function ends_ms(life) return tonumber(life:match('^%d+')) end

local answer = 'renewed'
local old = redis.call('HGET', key, gateway)
if old then
  local lives = ends_ms(old) > now_ms
  if lives and old:match(' (.*)$') ~= holder then return 'taken' end
  if not lives then answer = 'lapsed' end
else
  if ARGV[4] == '1' then answer = 'lapsed' end
  -- A new life: the time to forget those that ended over an hour ago.
  local lives = redis.call('HGETALL', key)
  for i = 1, #lives, 2 do
    if ends_ms(lives[i + 1]) + 3600000 < now_ms then redis.call('HDEL', key, lives[i]) end
  end
end
redis.call('HSET', key, gateway, string.format('%.0f %s', now_ms + ARGV[2], holder))
return answer
