#!lua flags=allow-oom
-- Reads a task as it is now: one that is overdue is settled first, so that the status never lies. One that is claimed and has
-- not begun waits.
-- KEYS: 1 delayed, 2 counts, 3 kept, 4 dead, 5 record    ARGV: 1 key, 2 '1' if the reader waits for its end,
--   3 how many bytes a response may have that is returned
-- Returns {now in ms, {state, method, create ms, expire ms, result TTL s, attempts, end ms, stop, reason, response, error,
--   the field of the response that is answered with, when it may run at first in ms or nil}, how many bytes the response has that is left out, what ended (`ends`)}
--   or, if there is no record here, {now in ms, up to when what had ended was purged, in ms, or nil,
--   something if it may have been moved to another queue, or nil}

local delayed, counts, kept, dead, record = unpack(KEYS)
local now = now_ms()
local state, expiry, known_by = fields_of(record, 's', 'x', 'h')
if not state or state == 'M' then
  return { now, redis.call('HGET', counts, 'purged'), state or redis.call('HGET', counts, 'moved') }
end
local due = number(expiry)
local waits_in_hand = state == 'R' and has_not_begun(known_by)
if waits_in_hand and due and due <= now then
  unclaim(record)
  state, waits_in_hand = 'Q', false
end
if state == 'Q' and not due then
  redis.call('ZREM', delayed, ARGV[1])
  give_up_damaged(record, dead, ARGV[1], now, state)
  write_counts(counts)
elseif state == 'Q' and due <= now then
  redis.call('ZREM', delayed, ARGV[1])
  expire(record, dead, ARGV[1], now)
  write_counts(counts, kept)
elseif ARGV[2] == '1' and not is_final(state) then
  redis.call('HSETNX', record, 'l', '1')
end
local response_bytes = redis.call('HSTRLEN', record, 'o')
local left_out = response_bytes > tonumber(ARGV[3])
-- No record has a field without a name.
local read = redis.call('HMGET', record, 's', 'm', 'c', 'x', 'r', 'a', 'z', 'w', 'd', left_out and '' or 'o', 'e', 'A', 'B')
if waits_in_hand then
  read[1], read[6] = 'Q', tostring((number(read[6]) or 1) - 1)
end
return { now, read, left_out and response_bytes or 0, ends }
