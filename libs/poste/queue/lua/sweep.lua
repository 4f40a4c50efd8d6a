#!lua flags=allow-oom
-- Settles waiting tasks that are overdue, and takes keys off the queue whose tasks have ended. A key far from both ends of a
-- long queue is dear to find by its name (30 ms of everybody's time among a million). So those of a window are marked where
-- they stand, and one search takes all of them off.
-- KEYS: 1 ready, or a lane, 2 counts, 3 kept, 4 dead, 5… records
-- ARGV: 1 where the window begins in that list, below 0 if it is one at the end, then for each record: key
-- Returns {how many keys were taken off, what ended (`ends`)}

local ready, counts, kept, dead = unpack(KEYS, 1, 4)
local now, over_keys = now_ms(), {}

-- The queue may have moved by so many places since the window was read; what moved further is found the next time.
local SLACK = 1000
local REMOVED = ''

local function take_off(keys)
  local first, count, marked = tonumber(ARGV[1]), #KEYS - 4, 0
  local at_end = first < 0
  local span = at_end and redis.call('LRANGE', ready, first - SLACK, -1)
    or redis.call('LRANGE', ready, math.max(0, first - count), first + count + SLACK)
  for place, key in ipairs(span) do
    if keys[key] then
      redis.call('LSET', ready, at_end and place - #span - 1 or math.max(0, first - count) + place - 1, REMOVED)
      marked = marked + 1
    end
  end
  if marked > 0 then
    local from_end = at_end or first > redis.call('LLEN', ready) / 2
    redis.call('LREM', ready, from_end and -marked or marked, REMOVED)
  end
  return marked
end

for i = 5, #KEYS do
  local record, key = KEYS[i], ARGV[i - 3]
  local state, expiry = fields_of(record, 's', 'x')
  local over = not state or is_final(state)
  if state == 'Q' and not number(expiry) then
    give_up_damaged(record, dead, key, now, state)
    over = true
  elseif state == 'Q' and number(expiry) <= now then
    expire(record, dead, key, now)
    over = true
  end
  if over then
    over_keys[key] = true
  end
end
write_counts(counts, kept)
return { next(over_keys) and take_off(over_keys) or 0, ends }
