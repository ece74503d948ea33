-- Acknowledges, then trims what lies before all that is unread or pending.
-- KEYS: stream, lease, closed. ARGV: token, former token, ids.
local holder = redis.call('GET', KEYS[2])
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
local there = not groups.err and #groups > 0
if holder ~= ARGV[1] and (not holder or holder ~= ARGV[2]) then
  local closed = redis.call('GET', KEYS[3])
  if closed and (closed == ARGV[1] or closed == ARGV[2]) then return 'CLOSED' end
  if holder or there then return 'LOST' end
end
-- Flushed: there is nothing to acknowledge, and the next read will say so.
if not there then return 'OK' end
for i = 3, #ARGV do redis.call('XACK', KEYS[1], 'sluice', ARGV[i]) end
local pending = redis.call('XPENDING', KEYS[1], 'sluice')
local first = pending[2]
if pending[1] == 0 then
  for i = 1, #groups[1], 2 do
    if groups[1][i] == 'last-delivered-id' then
      local ms, n = string.match(groups[1][i + 1], '^(%d+)-(%d+)$')
      first = ms .. '-' .. string.format('%.0f', tonumber(n) + 1)
    end
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', first)
return 'OK'
