#!lua flags=allow-oom
-- An operator gives DEAD tasks up for good: their requests go at once, and what is left says DEAD as long as the id of a task
-- without a record would count as lost.
-- KEYS: 1 dead, 2… records    ARGV: for each record: key
-- Returns for each: 'done', also if it was purged before | 'ended' (not as DEAD), or it waits or runs | 'gone' (no record)

local dead = KEYS[1]
local now = now_ms()

local function purge(record, key)
  local state, create, ttl = fields_of(record, 's', 'c', 'r')
  if not state then
    redis.call('ZREM', dead, key)
    return 'gone'
  elseif state ~= 'D' then
    return 'ended'
  elseif redis.call('ZREM', dead, key) == 1 then
    redis.call('HDEL', record, 'q', 'u')
    local kept_until = (number(create) or now) + (number(ttl) or 0) * 1000
    redis.call('PEXPIREAT', record, math.max(kept_until, now + MIN_RECORD_SECONDS * 1000))
  end
  return 'done'
end

local results = {}
for i = 2, #KEYS do
  results[#results + 1] = purge(KEYS[i], ARGV[i - 1])
end
return results
