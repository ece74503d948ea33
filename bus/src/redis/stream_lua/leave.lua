-- Leaves what the consumer holds to the others, at once.
-- KEYS: stream. ARGV: consumer.
local rows = redis.pcall('XPENDING', KEYS[1], 'sluice', '-', '+', 100000, ARGV[1])
if rows.err then return 0 end
for _, row in ipairs(rows) do
  redis.call('XCLAIM', KEYS[1], 'sluice', ARGV[1], 0, row[1], 'IDLE', 86400000, 'JUSTID')
end
if #rows == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'sluice', ARGV[1]) end
return #rows
