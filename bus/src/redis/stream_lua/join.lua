-- Makes the group, and forgets consumers that left nothing and have long been silent.
-- KEYS: stream, closed. ARGV: idle ms.
redis.call('DEL', KEYS[2])
redis.pcall('XGROUP', 'CREATE', KEYS[1], 'sluice', '0', 'MKSTREAM')
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'sluice')) do
  local of = {}
  for i = 1, #row, 2 do of[row[i]] = row[i + 1] end
  if of['pending'] == 0 and of['idle'] > tonumber(ARGV[1]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'sluice', of['name'])
  end
end
return 'OK'
