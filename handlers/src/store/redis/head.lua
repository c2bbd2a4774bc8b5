-- Where a channel's log ends and begins.
--
-- KEYS  1 log  2 meta                        (as in append.lua)
-- Returns {} if the channel is unknown, or {head, ended, the oldest entry or {}}

local known = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'ended')
if not known[1] then return {} end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1] or {}
return {known[1] .. '-' .. known[2], known[3], oldest}
