#!lua flags=allow-oom
-- An operator gives DEAD tasks up for good: their requests go at once, and what is left says DEAD as long as the id of a task
-- without a record would count as lost.
-- KEYS: 1 counts, 2 kept, 3 dead, 4… records    ARGV: for each record: key
-- Returns for each: 'done', also if it was purged before | 'ended' (not as DEAD), or it waits or runs | 'gone' (no record here any more)

local counts, kept, dead = unpack(KEYS, 1, 3)
local now = now_ms()

local function purge(record, key)
  local state, create, ttl, client = fields_of(record, 's', 'c', 'r', 'C')
  if not state or state == 'M' then
    redis.call('ZREM', dead, key)
    return 'gone'
  elseif state ~= 'D' then
    return 'ended'
  elseif redis.call('ZREM', dead, key) == 1 then
    count_dead(record, -1)
    local expiry = math.max((number(create) or now) + (number(ttl) or 0) * 1000, now + MIN_RECORD_SECONDS * 1000)
    redis.call('HDEL', record, 'q', 'u')
    redis.call('HSET', record, 'j', expiry)
    redis.call('PEXPIREAT', record, expiry)
    count_kept(record, client, 1, expiry, ttl, redis.call('HSTRLEN', record, 'e'))
  end
  return 'done'
end

local results = {}
for i = 4, #KEYS do
  results[#results + 1] = purge(KEYS[i], ARGV[i - 3])
end
write_counts(counts, kept)
return results
