#!lua flags=allow-oom
-- An operator has DEAD and FAILED tasks run again: each waits at the end of the queue, as long as it might at first, with its
-- failures forgotten. One that killed its processes runs alone: it is a suspect from the start.
-- KEYS: 1 ready, 2 counts, 3 kept, 4 dead, 5… records    ARGV: 1 '1' if they run under whatever schema their service has by
--   then, then for each record: key
-- Returns for each: 'done', also if it was replayed before and waits or runs | 'open' (it waits or runs, and never was)
--   | 'ended' (otherwise) | 'gone' (no record here any more, or its request is no longer kept)

local ready, counts, kept, dead = unpack(KEYS, 1, 4)
local as_is, now = ARGV[1] == '1', now_ms()

local function replay(record, key)
  local state, ttl, reason, ended, notes = fields_of(record, 's', 'y', 'd', 'z', 'v')
  if state == 'Q' or state == 'R' then
    return notes and string.find(';' .. notes, ';p ', 1, true) and 'done' or 'open'
  elseif state and state ~= 'M' and state ~= 'D' and state ~= 'F' then
    return 'ended'
  end
  local event = number(ttl) and take_back(record, dead, key, state, now)
  if not event then
    return 'gone'
  end
  append_event(record, event, number(ended) or now, reason)
  append_event(record, 'p', now)
  redis.call('HDEL', record, 't', 'h', 'w', 'l', 'f', 'i', 'k', 'e', 'd', 'z', 'K', 'N')
  if redis.call('HEXISTS', record, 'W') == 1 then
    -- Its next end is told, and no longer this one.
    drop_callback(record)
    redis.call('HSET', record, 'l', CALLBACK)
  end
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
for i = 5, #KEYS do
  results[#results + 1] = replay(KEYS[i], ARGV[i - 3])
end
write_counts(counts, kept)
return results
