#!lua flags=allow-oom
-- Cancels a waiting task, and asks a running one to stop. Its key stays in the queue (finding it there would cost as
-- much as the queue is long); who takes it drops it, and the sweep removes it.
-- KEYS: 1 delayed, 2 counts, 3 dead, 4 record    ARGV: 1 key    Returns the state before, or nothing if there is no record

local delayed, counts, dead, record = unpack(KEYS)
local state, expiry = unpack(redis.call('HMGET', record, 's', 'x'))
if state == 'Q' then
  local now = now_ms()
  redis.call('ZREM', delayed, ARGV[1])
  if tonumber(expiry) <= now then
    expire(record, dead, ARGV[1], now)
  else
    count_waiting(record, -1)
    finish(record, 'C', now)
  end
  write_counts(counts)
elseif state == 'R' then
  redis.call('HSETNX', record, 'w', now_ms())
end
return state
