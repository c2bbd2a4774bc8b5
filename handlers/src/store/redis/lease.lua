-- Takes or renews a lease.
--
-- KEYS  1 lease: string, the owner
-- ARGV  1 owner  2 ttl in ms
-- Returns 1 if the owner has it now, else 0

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
