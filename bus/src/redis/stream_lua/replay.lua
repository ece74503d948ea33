-- Appends dead letters anew to their stream. KEYS: stream, dead letters. ARGV: ids.
local replayed = 0
for i = 1, #ARGV do
  local row = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if row then
    for f = 1, #row[2], 2 do
      if row[2][f] == 'p' then redis.call('XADD', KEYS[1], '*', 'p', row[2][f + 1]) end
    end
    redis.call('XDEL', KEYS[2], ARGV[i])
    replayed = replayed + 1
  end
end
return replayed
