-- Reads beside others. KEYS: stream, dead letters, closed.
-- ARGV: consumer, cursor or '>', most entries, deliveries max, dead letters max,
-- 1 to look for what others left behind, idle ms of that.
if not has_group() then
  if redis.call('EXISTS', KEYS[3]) == 1 then return {'CLOSED'} end
  heal()
end
local consumer, cursor, max = ARGV[1], ARGV[2], tonumber(ARGV[3])
local deliveries_max = tonumber(ARGV[4])

-- Takes entries whose consumer has been silent, and forgets consumers without any.
local function inherit()
  local rows = redis.call('XPENDING', stream, 'sluice', 'IDLE', ARGV[7], '-', '+', max)
  local ids, counts = healthy(rows, deliveries_max, ARGV[5])
  if #ids == 0 then return end
  local claim = {'XCLAIM', stream, 'sluice', consumer, ARGV[7]}
  for _, id in ipairs(ids) do claim[#claim + 1] = id end
  local count_of, taken = {}, {}
  for i, id in ipairs(ids) do count_of[id] = counts[i] end
  local claimed = redis.call(unpack(claim))
  for _, row in ipairs(claimed) do taken[#taken + 1] = count_of[row[1]] end
  lost = lost + #ids - #claimed
  take(claimed, taken)
  local seen = {[consumer] = true}
  for _, row in ipairs(rows) do
    local former = row[2]
    if not seen[former] and #redis.call('XPENDING', stream, 'sluice', '-', '+', 1, former) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, 'sluice', former)
    end
    seen[former] = true
  end
end

if cursor ~= '>' then
  cursor = own_pending(consumer, cursor, max, deliveries_max, ARGV[5]) or '>'
else
  if ARGV[6] == '1' then inherit() end
  if #entries == 0 then fresh(consumer, max) end
  if #entries == 0 and ARGV[6] ~= '1' then inherit() end
end
return {'OK', reset, lost, buried, cursor, #entries == 0 and newest() or '', entries}
