#!lua flags=allow-oom
-- Settles waiting tasks that are overdue, and takes keys off the queue whose tasks have ended.
-- KEYS: 1 ready, 2 counts, 3… records    ARGV: for each record: key
-- Returns {the keys of those that expired, how many keys were taken off}

local ready, counts = KEYS[1], KEYS[2]
local now, expired, removed = now_ms(), {}, 0
for i = 3, #KEYS do
  local state, expire = unpack(redis.call('HMGET', KEYS[i], 's', 'x'))
  local over = not state or is_final(state)
  if state == 'Q' and tonumber(expire) <= now then
    count_waiting(KEYS[i], -1)
    finish(KEYS[i], 'E', now)
    expired[#expired + 1], over = ARGV[i - 2], true
  end
  if over then
    removed = removed + redis.call('LREM', ready, -1, ARGV[i - 2])
  end
end
write_counts(counts)
return { expired, removed }
