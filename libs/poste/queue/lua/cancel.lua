#!lua flags=allow-oom
-- Cancels a waiting task, also one that is claimed and has not begun, and asks a running one to stop. Its key stays in the
-- queue (finding it there would cost as much as the queue is long); who takes it drops it, and the sweep removes it.
-- KEYS: 1 delayed, 2 counts, 3 kept, 4 dead, 5 record    ARGV: 1 key    Returns {what ended (`ends`)}

local delayed, counts, kept, dead, record = unpack(KEYS)
local state, expiry, known_by = fields_of(record, 's', 'x', 'h')
if state == 'R' and has_not_begun(known_by) then
  unclaim(record)
  state = 'Q'
end
if state == 'Q' then
  local now = now_ms()
  redis.call('ZREM', delayed, ARGV[1])
  if number(expiry) and number(expiry) <= now then
    expire(record, dead, ARGV[1], now)
  else
    count_waiting(record, -1)
    finish(record, 'C', now)
  end
  write_counts(counts, kept)
elseif state == 'R' then
  redis.call('HSETNX', record, 'w', now_ms())
end
return { ends }
