#!lua flags=allow-oom
-- A consumer gives back what it claimed and did not run: each waits a while for another claim, and nothing is counted, for
-- no attempt began. It needs RUNNING and this very token, so whatever has become of a task meanwhile stands.
-- KEYS: 1 delayed, 2 taken:<incarnation>, 3 counts, 4 kept, 5… records
-- ARGV: for each record: key, token, how long to wait in ms
-- Returns {how many wait, what ended (`ends`)}

local delayed, taken, counts, kept = unpack(KEYS, 1, 4)
local now, waiting = now_ms(), 0
for i = 5, #KEYS do
  local at = 1 + (i - 5) * 3
  local record, key, token, wait = KEYS[i], ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local state, holder, stop, expire = fields_of(record, 's', 't', 'w', 'x')
  if state == 'R' and holder == token then
    redis.call('LREM', taken, -1, key)
    count_running(-1)
    if stop then
      finish(record, 'C', now)
    else
      redis.call('HDEL', record, 't', 'b', 'h')
      redis.call('HSET', record, 's', 'Q')
      redis.pcall('HINCRBY', record, 'a', -1)
      count_waiting(record, 1)
      count_done('put_off')
      -- Due at the latest when the task expires, so that it is settled then.
      redis.call('ZADD', delayed, math.min(now + wait, number(expire) or now), key)
      waiting = waiting + 1
    end
  elseif not state or is_final(state) then
    redis.call('LREM', taken, -1, key)
  end
end
write_counts(counts, kept)
return { waiting, ends }
