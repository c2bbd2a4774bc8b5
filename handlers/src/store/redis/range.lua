-- Reads events after a cursor, with the head of the same moment.
--
-- KEYS  1 log  2 meta                        (as in append.lua)
-- ARGV  1 epoch  2 offset of the cursor  3 events max  4 bytes max
-- Returns {} if the channel is unknown, or
--         {head, ended, oldest id, oldest prev, born, {entry, …}}; the first four as in head.lua,
--         an entry is {id, {name, value, …}}

local log, meta = KEYS[1], KEYS[2]
local events_max, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Entries are fetched in pieces, so that a small limit in bytes doesn't load a whole history.
local PIECE_ENTRIES = 64

local known = redis.call('HMGET', meta, 'epoch', 'offset', 'ended', 'born')
if not known[1] then return {} end
local head = known[1] .. '-' .. known[2]

local function field(entry, name)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return ''
end

local oldest, oldest_prev = '', ''
for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', 1)) do
  oldest, oldest_prev = entry[1], field(entry, 'prev')
end

local events = {}
local function reply() return {head, known[3], oldest, oldest_prev, known[4], events} end

-- The largest cursor is no valid exclusive start, so the head is compared first. A cursor above
-- 2^53 is rounded here, but to something that is beyond every head all the same.
local epoch, offset = tonumber(ARGV[1]), tonumber(ARGV[2])
local head_epoch, head_offset = tonumber(known[1]), tonumber(known[2])
if epoch > head_epoch or (epoch == head_epoch and offset >= head_offset) then
  return reply()
end

local bytes, after = 0, ARGV[1] .. '-' .. ARGV[2]
while #events < events_max do
  local count = math.min(PIECE_ENTRIES, events_max - #events)
  local piece = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', count)
  for _, entry in ipairs(piece) do
    bytes = bytes + #field(entry, 'data')
    if #events > 0 and bytes > bytes_max then return reply() end
    events[#events + 1] = entry
  end
  if #piece < count then break end
  after = piece[#piece][1]
end
return reply()
