#!lua flags=allow-oom
-- An operator has DEAD tasks run again: each waits at the end of the queue, as long as it might at first, with its failures
-- forgotten. One that killed its processes runs alone: it is a suspect from the start.
-- KEYS: 1 ready, 2 counts, 3 dead, 4… records    ARGV: 1 '1' if they run under whatever schema their service has by then,
--       then for each record: key
-- Returns for each: 'done', also if it waits or runs already | 'ended' (not as DEAD) | 'gone' (no record, or purged)

local ready, counts, dead = KEYS[1], KEYS[2], KEYS[3]
local as_is, now = ARGV[1] == '1', now_ms()

local function replay(record, key)
  local state, ttl, reason, died = fields_of(record, 's', 'y', 'd', 'z')
  if state == 'Q' or state == 'R' then
    return 'done'
  elseif state and state ~= 'D' then
    return 'ended'
  elseif not number(ttl) or redis.call('ZREM', dead, key) == 0 then
    return 'gone'
  end
  count_dead(record, -1)
  append_event(record, 'd', died or now, reason)
  append_event(record, 'p', now)
  redis.call('HDEL', record, 't', 'h', 'w', 'l', 'f', 'i', 'k', 'e', 'd', 'z')
  redis.call('HSET', record, 's', 'Q', 'x', now + ttl)
  if as_is then
    redis.call('HDEL', record, 'V')
  end
  if reason == 'crashes' then
    redis.call('HSET', record, 'u', SUSPECT_AFTER)
  end
  count_waiting(record, 1)
  count_done('replayed')
  redis.call('LPUSH', ready, key)
  return 'done'
end

local results = {}
for i = 4, #KEYS do
  results[#results + 1] = replay(KEYS[i], ARGV[i - 2])
end
write_counts(counts)
return results
