-- Where a channel's log ends and begins.
--
-- KEYS  1 log  2 meta                        (as in append.lua)
-- Returns {} if the channel is unknown, or {head, ended, id of the oldest entry, its prev}, which
--         are '' if there is none, or if it has no such field. (Its data may be large.)

local known = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'ended')
if not known[1] then return {} end
local oldest, prev = '', ''
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)) do
  oldest = entry[1]
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'prev' then prev = entry[2][i + 1] end
  end
end
return {known[1] .. '-' .. known[2], known[3], oldest, prev}
