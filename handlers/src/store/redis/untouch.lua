-- Takes a channel out of the activity index, unless it was active again.
--
-- KEYS  1 index                              (as in touch.lua)
-- ARGV  1 channel name  2 the score that it must have

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
