-- Appends a batch as a whole, or nothing.
-- KEYS: stream, lease. ARGV: most entries, 1 if the reader must be there, payloads.
if ARGV[2] == '1' and redis.call('EXISTS', KEYS[2], KEYS[1]) < 2 then return 'GONE' end
local held = redis.call('XLEN', KEYS[1])
if held > 0 and held + #ARGV - 2 > tonumber(ARGV[1]) then return 'FULL' end
for i = 3, #ARGV do redis.call('XADD', KEYS[1], '*', 'p', ARGV[i]) end
return 'OK'
