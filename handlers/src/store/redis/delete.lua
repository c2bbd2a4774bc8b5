-- Deletes a channel's log, unless it moved on, and tells its followers.
--
-- KEYS  1 log  2 meta  3 grave  4 live       (as in append.lua)
-- ARGV  1 the head that it must have, or ''
--       2 how long its epoch is remembered, in ms
--       3 PUBLISH, or SPUBLISH on a cluster
-- Returns 1 if the log is gone, 0 if it was kept or there was nothing to delete

local known = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
local head = '0-0'
if known[1] then head = known[1] .. '-' .. known[2] end

if ARGV[1] ~= '' and ARGV[1] ~= head then return 0 end
if ARGV[1] == '' and not known[1] then return 0 end

-- A log that expired needs no grave: the clock has moved on meanwhile.
if known[1] then redis.call('SET', KEYS[3], known[1], 'PX', ARGV[2]) end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call(ARGV[3], KEYS[4], 'D')
return 1
