#!lua flags=allow-oom
-- Marks a claimed at-most-once task as begun: from now on its outcome is unknown unless its owner reports it. Its handler
-- starts once this is answered. Tasks begin one after the other, so that a crash makes at most one unknown that never ran.
-- It needs RUNNING and this very token; asked again, it answers the same.
-- KEYS: 1 leases, 2 taken:<incarnation>, 3 counts, 4 kept, 5 dead, 6 record    ARGV: 1 incarnation, 2 key, 3 token
-- Returns {'begun' | 'drop': it is not to begin, for it was cancelled, its time is over, or it is another claim's by now
--   | 'paused': nothing was done, give it back, for the queue stands still | 'fenced': there is no lease}
--   and behind that, if it ended, `ends`

local leases, taken, counts, kept, dead, record = unpack(KEYS)
local me, key, token = unpack(ARGV)
if not redis.call('ZSCORE', leases, me) then
  return { 'fenced' }
end
local state, holder, waits, stop, expiry = fields_of(record, 's', 't', 'h', 'w', 'x')
if state ~= 'R' or holder ~= token then
  if not state or is_final(state) then
    redis.call('LREM', taken, -1, key)
  end
  return { 'drop' }
end
if not waits then
  return { 'begun' }
end
local now = now_ms()
if stop or (number(expiry) or now) <= now then
  redis.call('LREM', taken, -1, key)
  if stop then
    count_running(-1)
    finish(record, 'C', now)
  else
    unclaim(record)
    expire(record, dead, key, now)
  end
  write_counts(counts, kept)
  return { 'drop', ends }
end
if stands_still(counts) then
  return { 'paused' }
end
redis.call('HDEL', record, 'h')
redis.call('HSET', record, 'b', now)
count_done('started')
write_counts(counts)
return { 'begun' }
