-- Notes that a channel is active, in its shard of the activity index.
--
-- KEYS  1 index: sorted set of channel names by µs since 1970
-- ARGV  1 channel name
--
-- Each touch changes the score, so that untouch.lua recognises whether there was one.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
redis.call('ZADD', KEYS[1], string.format('%.0f', math.max(now, last + 1)), ARGV[1])
return 1
