-- Ends a gateway's life unless another holds it: KEYS[1] as in lease.lua;
-- ARGV: gateway, holder.
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and old:match(' (.*)$') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
