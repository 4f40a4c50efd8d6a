#!lua flags=allow-oom
-- Settles waiting tasks that are overdue, and takes keys off the queue whose tasks have ended.
-- KEYS: 1 ready, 2 counts, 3 kept, 4 dead, 5… records    ARGV: for each record: key
-- Returns {the keys of those that expired, of those that are dead now, how many keys were taken off}

local ready, counts, kept, dead = unpack(KEYS, 1, 4)
local now, removed = now_ms(), 0
local settled = { E = {}, D = {} }
for i = 5, #KEYS do
  local record, key = KEYS[i], ARGV[i - 4]
  local state, expiry = fields_of(record, 's', 'x')
  local over = not state or is_final(state)
  if state == 'Q' and not number(expiry) then
    bury_damaged(record, dead, key, now, state)
    settled.D[#settled.D + 1], over = key, true
  elseif state == 'Q' and number(expiry) <= now then
    local became = settled[expire(record, dead, key, now)]
    became[#became + 1], over = key, true
  end
  if over then
    removed = removed + redis.call('LREM', ready, -1, key)
  end
end
write_counts(counts, kept)
return { settled.E, settled.D, removed }
