-- Deletes the stream, and remembers from whom for when its reader asks.
-- KEYS: stream, lease, closed.
local holder = redis.call('GET', KEYS[2])
redis.call('DEL', KEYS[1], KEYS[2])
if holder then
  redis.call('SET', KEYS[3], holder, 'PX', 60000)
else
  redis.call('SET', KEYS[3], '-', 'PX', 60000, 'NX')
end
return 'OK'
