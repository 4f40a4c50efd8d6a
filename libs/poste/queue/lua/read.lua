#!lua flags=allow-oom
-- Reads a task as it is now: one that is overdue is settled first, so that the status never lies.
-- KEYS: 1 delayed, 2 counts, 3 dead, 4 record    ARGV: 1 key, 2 '1' if the reader waits for its end
-- Returns {now in ms, {state, method, create ms, expire ms, result TTL s, attempts, end ms, stop, reason, response, error}}
--   the second part is missing if there is no record

local delayed, counts, dead, record = unpack(KEYS)
local now = now_ms()
local state, expiry = unpack(redis.call('HMGET', record, 's', 'x'))
if not state then
  return { now }
end
if state == 'Q' and tonumber(expiry) <= now then
  redis.call('ZREM', delayed, ARGV[1])
  expire(record, dead, ARGV[1], now)
  write_counts(counts)
elseif ARGV[2] == '1' and not is_final(state) then
  redis.call('HSET', record, 'l', '1')
end
return { now, redis.call('HMGET', record, 's', 'm', 'c', 'x', 'r', 'a', 'z', 'w', 'd', 'o', 'e') }
