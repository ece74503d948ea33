-- What both kinds of reading share. KEYS[1] is the stream, KEYS[2] its dead letters.
local stream, dead = KEYS[1], KEYS[2]
local entries, lost, reset, buried = {}, 0, 0, 0

local function has_group()
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  return not groups.err and #groups > 0
end

local function payload(fields)
  for i = 1, #fields, 2 do if fields[i] == 'p' then return fields[i + 1] end end
  return ''
end

-- Adds what a read returned. Entries that were trimmed come without fields.
local function take(rows, counts)
  for i, row in ipairs(rows) do
    if row[2] then
      entries[#entries + 1] = {row[1], counts and counts[i] or 1, payload(row[2])}
    else
      redis.call('XACK', stream, 'sluice', row[1])
      lost = lost + 1
    end
  end
end

local function bury(id, deliveries, deliveries_max, dead_max)
  local row = redis.call('XRANGE', stream, id, id)[1]
  if row then
    redis.call('XADD', dead, 'MAXLEN', '~', dead_max, '*', 'p', payload(row[2]), 'id', id,
      'deliveries', deliveries, 'reason', 'read ' .. deliveries .. ' times and never acknowledged')
    redis.call('XDEL', stream, id)
    buried = buried + 1
  else
    lost = lost + 1
  end
  redis.call('XACK', stream, 'sluice', id)
end

-- Sorts out pending rows {id, consumer, idle, deliveries}: poison is buried, what
-- is half way there comes alone. Returns the ids to take and their deliveries.
local function healthy(rows, deliveries_max, dead_max)
  local ids, counts = {}, {}
  for _, row in ipairs(rows) do
    local deliveries = row[4]
    if deliveries >= deliveries_max then
      bury(row[1], deliveries, deliveries_max, dead_max)
    else
      local suspect = deliveries * 2 >= deliveries_max
      if suspect and #ids > 0 then break end
      ids[#ids + 1] = row[1]
      counts[#counts + 1] = deliveries + 1
      if suspect then break end
    end
  end
  return ids, counts
end

-- The consumer's own pending entries after `cursor`. Returns the last id seen.
local function own_pending(consumer, cursor, max, deliveries_max, dead_max)
  local rows = redis.call('XPENDING', stream, 'sluice', '(' .. cursor, '+', max, consumer)
  if #rows == 0 then return false end
  local ids, counts = healthy(rows, deliveries_max, dead_max)
  if #ids == 0 then return rows[#rows][1] end
  -- Buried ones are not pending any more, so this page is what was found healthy.
  local read = redis.call('XREADGROUP', 'GROUP', 'sluice', consumer, 'COUNT', #ids,
    'STREAMS', stream, cursor)
  take(read[1][2], counts)
  return ids[#ids]
end

local function fresh(consumer, max)
  local read = redis.call('XREADGROUP', 'GROUP', 'sluice', consumer, 'COUNT', max,
    'STREAMS', stream, '>')
  if read then take(read[1][2]) end
end

local function heal()
  redis.call('XGROUP', 'CREATE', stream, 'sluice', '0', 'MKSTREAM')
  reset = 1
end

-- The newest id there is, for the doorbell.
local function newest()
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then return info[i + 1] end end
end
