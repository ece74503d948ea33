-- Reads as the owner. KEYS: stream, dead letters, lease, closed.
-- ARGV: token, former token, lease ms, 1 if down, cursor or '>', most entries,
-- deliveries max, dead letters max.
local holder = redis.call('GET', KEYS[3])
if holder ~= ARGV[1] then
  local closed = redis.call('GET', KEYS[4])
  if closed and (closed == ARGV[1] or closed == ARGV[2]) then return {'CLOSED'} end
  if holder and holder == ARGV[2] then
    -- From here on a read that is still on its way with the former token is void.
    redis.call('SET', KEYS[3], ARGV[1], 'KEEPTTL')
  elseif holder or has_group() then
    return {'LOST'}
  else
    -- All is gone, not only the lease: the engine was flushed, or forgot.
    redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
  end
end
if not has_group() then
  heal()
  if ARGV[4] == '1' then redis.call('PEXPIRE', stream, ARGV[3]) end
end
local cursor = ARGV[5]
if cursor == '>' then
  fresh('owner', ARGV[6])
else
  cursor = own_pending('owner', cursor, ARGV[6], tonumber(ARGV[7]), ARGV[8]) or '>'
end
return {'OK', reset, lost, buried, cursor, #entries == 0 and newest() or '', entries}
