-- KEYS: stream. ARGV: ids.
for i = 1, #ARGV do
  redis.call('XACK', KEYS[1], 'sluice', ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
end
return 'OK'
