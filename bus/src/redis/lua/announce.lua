-- Says that a node does some work for a while: KEYS[1] the sorted set of nodes
-- by the end of their announcement in Unix ms; ARGV: node, ttl in ms.
-- Answers all nodes that do it.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms))
return redis.call('ZRANGE', KEYS[1], 0, -1)
