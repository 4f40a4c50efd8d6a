#!lua flags=allow-oom
-- Reads a task as it is now: one that is overdue is settled first, so that the status never lies.
-- KEYS: 1 delayed, 2 counts, 3 record    ARGV: 1 key, 2 '1' if the reader waits for its end
-- Returns {now in ms, {state, method, create ms, expire ms, result TTL s, attempts, end ms, stop, reason, response, error}}
--   the second part is missing if there is no record

local record, now = KEYS[3], now_ms()
local state, expire = unpack(redis.call('HMGET', record, 's', 'x'))
if not state then
  return { now }
end
if state == 'Q' and tonumber(expire) <= now then
  redis.call('ZREM', KEYS[1], ARGV[1])
  count_waiting(record, -1)
  finish(record, 'E', now)
  write_counts(KEYS[2])
elseif ARGV[2] == '1' and not is_final(state) then
  redis.call('HSET', record, 'l', '1')
end
return { now, redis.call('HMGET', record, 's', 'm', 'c', 'x', 'r', 'a', 'z', 'w', 'd', 'o', 'e') }
