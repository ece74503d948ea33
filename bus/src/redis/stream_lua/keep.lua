-- Shows that the consumer still works on these, so that nobody inherits them.
-- Returns entries held and pending. KEYS: stream. ARGV: consumer, ids.
for i = 2, #ARGV do
  local row = redis.pcall('XPENDING', KEYS[1], 'sluice', ARGV[i], ARGV[i], 1, ARGV[1])
  if not row.err and #row == 1 then
    redis.call('XCLAIM', KEYS[1], 'sluice', ARGV[1], 0, ARGV[i], 'JUSTID')
  end
end
local pending = redis.pcall('XPENDING', KEYS[1], 'sluice')
return {redis.call('XLEN', KEYS[1]), pending.err and 0 or pending[1]}
