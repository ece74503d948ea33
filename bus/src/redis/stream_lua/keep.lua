-- Shows that the consumer still works on these, so that nobody inherits them.
-- KEYS: stream. ARGV: consumer, ids.
local kept = 0
for i = 2, #ARGV do
  local row = redis.pcall('XPENDING', KEYS[1], 'sluice', ARGV[i], ARGV[i], 1, ARGV[1])
  if not row.err and #row == 1 then
    redis.call('XCLAIM', KEYS[1], 'sluice', ARGV[1], 0, ARGV[i], 'JUSTID')
    kept = kept + 1
  end
end
return kept
