#!lua flags=allow-oom
-- Cancels waiting tasks, also those that are claimed and have not begun, and asks running ones to stop. Their keys stay in the
-- queue (finding one there would cost as much as the queue is long); who takes one drops it, and the sweep removes it.
-- KEYS: 1 delayed, 2 counts, 3 kept, 4 dead, 5 scheduled, 6… records
-- ARGV: 1 'operator' if it is one who cancels, '' if its client does, 2 '1' if only what waits is cancelled, then for each
--   record: key
-- Returns {for each: 'done' | 'asked' (it runs, and was asked to stop) | 'runs' (it does, and only what waits is cancelled)
--   | 'ended' (otherwise) | 'gone' (no record here any more), what ended (`ends`)}

local delayed, counts, kept, dead, scheduled = unpack(KEYS, 1, 5)
local by, only_waiting = ARGV[1], ARGV[2] == '1'
local now = now_ms()

local function cancel_waiting(record, key, expiry)
  redis.call('ZREM', delayed, key)
  redis.call('ZREM', scheduled, key)
  if number(expiry) and number(expiry) <= now then
    expire(record, dead, key, now)
    return 'ended'
  end
  count_waiting(record, -1)
  if by == '' then
    finish(record, 'C', now)
  else
    finish(record, 'C', now, 'd', by)
    ends[#ends][3] = by
  end
  return 'done'
end

local function cancel(record, key)
  local state, expiry, known_by = fields_of(record, 's', 'x', 'h')
  if not state or state == 'M' then
    return 'gone'
  elseif state == 'R' and has_not_begun(known_by) then
    unclaim(record)
    return cancel_waiting(record, key, expiry)
  elseif state == 'Q' then
    return cancel_waiting(record, key, expiry)
  elseif state ~= 'R' then
    return state == 'C' and 'done' or 'ended'
  elseif only_waiting then
    return 'runs'
  end
  redis.call('HSETNX', record, 'w', now)
  return 'asked'
end

local results = {}
for i = 6, #KEYS do
  results[#results + 1] = cancel(KEYS[i], ARGV[i - 3])
end
write_counts(counts, kept)
return { results, ends }
