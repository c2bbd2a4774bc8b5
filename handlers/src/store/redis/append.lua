-- Appends an event to a channel's log, if its conditions hold (`store/mod.rs`, "Appends").
--
-- KEYS  1 log     stream: the events; entry ids are event ids
--       2 meta    hash: epoch, offset, ended, born, expires, generation
--       3 grave   string: the epoch of a log that was deleted lately
--       4 rate    string: messages in the current window; its TTL is the window
--       5 live    pub/sub channel of the announcements
--       6 dedup   string: the id of the event with this message id; absent without one
-- ARGV  1 kind  2 end (0, 1)  3 data  4 expected offset or ''  5 fence or ''
--       6 messages in a rate window or ''  7 the window in ms
--       8 ttl in ms  9 dedup ttl in ms  10 history max  11 must not have ended (0, 1)
--       12 epoch that must be passed, or ''  13 PUBLISH, or SPUBLISH on a cluster
--       14 the last append must have been on another server (0, 1)
-- Returns {0, id}: appended · {1, id}: a duplicate · {2, head}: conflict · {3, ms}: rate limited
--
-- A server that was promoted or restarted may lack what the one before it acknowledged last, and
-- readers may have it. So the log never goes on in the same epoch there: each such server has a
-- generation of its own (its `master_replid`), and the first append that finds another one than the
-- last append did begins a new epoch, as after an END. The script asks for it itself, which costs
-- 5 us: what a client learned when it connected is wrong after its server was demoted and promoted
-- again, and would hide just the loss that matters.
--
-- The first write is the XADD: should the server refuse writes (out of memory), nothing was done.

local log, meta, grave, rate, live, dedup = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local kind, is_end, data = ARGV[1], ARGV[2], ARGV[3]
local expect, fence = ARGV[4], ARGV[5]
local rate_max, rate_per = tonumber(ARGV[6]), tonumber(ARGV[7])
local ttl, dedup_ttl, history_max = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local beyond, announce = tonumber(ARGV[12]), ARGV[13]

-- Numbers are doubles here: exact below 2^53, which epochs and offsets never reach.
local function text(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local generation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''

local known = redis.call('HMGET', meta, 'epoch', 'offset', 'ended', 'born', 'generation')
local epoch, offset = tonumber(known[1]), tonumber(known[2])
local ended, born = known[3] == '1', tonumber(known[4])
local head = '0-0'
if epoch then head = text(epoch) .. '-' .. text(offset) end

-- A message id counts no longer than the log that the event went into.
if dedup and dedup_ttl > 0 and epoch then
  local earlier = redis.call('GET', dedup)
  if earlier and tonumber(string.match(earlier, '^%d+')) >= born then return {1, earlier} end
end

if expect ~= '' and tonumber(expect) ~= (offset or 0) then return {2, head} end
if fence ~= '' and fence ~= head then return {2, head} end
if ended and ARGV[11] == '1' then return {2, head} end
local torn = known[5] and known[5] ~= generation
if ARGV[14] == '1' and not torn then return {2, head} end

local used = 0
if rate_max then
  used = tonumber(redis.call('GET', rate) or '0')
  if used >= rate_max then
    local left = redis.call('PTTL', rate)
    if left < 0 then left = rate_per end
    -- A key lives through the last millisecond of its TTL.
    return {3, left + 1}
  end
end

if not epoch then
  -- Only an eviction can have left events without their meta.
  redis.call('DEL', log)
  local buried = tonumber(redis.call('GET', grave) or '0')
  epoch, offset = math.max(now, buried + 1, (beyond or 0) + 1), 1
  born = epoch
elseif ended or beyond or torn then
  epoch, offset = math.max(now, epoch + 1, (beyond or 0) + 1), 1
else
  offset = offset + 1
end
local id = text(epoch) .. '-' .. text(offset)

local fields = {'kind', kind, 'end', is_end, 'data', data}
if offset == 1 then
  fields[7], fields[8] = 'prev', head
end
redis.call('XADD', log, 'MAXLEN', '=', history_max, id, unpack(fields))
redis.call('PEXPIRE', log, ttl)
redis.call('HSET', meta, 'epoch', text(epoch), 'offset', text(offset), 'ended', is_end,
  'born', text(born), 'expires', text(now + ttl), 'generation', generation)
redis.call('PEXPIRE', meta, ttl)

if rate_max then
  if used == 0 then
    redis.call('SET', rate, 1, 'PX', rate_per)
  else
    redis.call('INCR', rate)
  end
end
if dedup and dedup_ttl > 0 then redis.call('SET', dedup, id, 'PX', dedup_ttl) end

-- Without holes within an epoch, the predecessor of any other event is known by its id.
local prev = head
redis.call(announce, live, 'E ' .. id .. ' ' .. prev .. ' ' .. is_end .. ' ' .. kind .. '\n' .. data)
return {0, id}
