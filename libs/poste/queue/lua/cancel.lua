#!lua flags=allow-oom
-- Cancels a waiting task, and asks a running one to stop. Its key stays in the queue (finding it there would cost as
-- much as the queue is long); who takes it drops it, and the sweep removes it.
-- KEYS: 1 delayed, 2 counts, 3 record    ARGV: 1 key    Returns the state before, or nothing if there is no record

local state, expire = unpack(redis.call('HMGET', KEYS[3], 's', 'x'))
if state == 'Q' then
  local now = now_ms()
  redis.call('ZREM', KEYS[1], ARGV[1])
  count_waiting(KEYS[3], -1)
  finish(KEYS[3], tonumber(expire) <= now and 'E' or 'C', now)
  write_counts(KEYS[2])
elseif state == 'R' then
  redis.call('HSETNX', KEYS[3], 'w', now_ms())
end
return state
