-- Entries held, and the age of the oldest in ms. KEYS: stream.
local held = redis.call('XLEN', KEYS[1])
if held == 0 then return {0, 0} end
local oldest = tonumber(string.match(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1], '^(%d+)'))
local now = redis.call('TIME')
return {held, math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - oldest)}
