#!lua flags=allow-oom
-- A consumer that stops puts back what it did not finish. A stop is no attempt; but a task that must not run twice and
-- whose handler had started may have run, and is DEAD.
-- KEYS: 1 ready, 2 taken:<incarnation>, 3 counts, 4 kept, 5 dead, 6… records
-- ARGV: for each record: key, token ('' if it was not claimed), '1' if its handler had started
-- Returns {how many were put back, what ended (`ends`)}

local ready, taken, counts, kept, dead = unpack(KEYS, 1, 5)
local now, back = now_ms(), 0
for i = 6, #KEYS do
  local at = 1 + (i - 6) * 3
  local record, key, token, started = KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  if redis.call('LREM', taken, -1, key) > 0 then
    local state, holder, once, stop, waits = fields_of(record, 's', 't', 'n', 'w', 'h')
    if state == 'R' and stop then
      count_running(-1)
      finish(record, 'C', now)
    elseif state == 'R' and holder == token and once and started then
      count_running(-1)
      dead_letter(record, dead, key, 'outcome-unknown', now)
    elseif state == 'R' and waits and not started then
      unclaim(record)
      redis.call('RPUSH', ready, key)
      back = back + 1
    elseif state == 'R' then
      -- Or claimed by me under a token whose answer was lost: then its handler never started.
      requeue(record, ready, key, 'g', now)
      redis.pcall('HINCRBY', record, 'a', -1)
      back = back + 1
    elseif state == 'Q' then
      redis.call('RPUSH', ready, key)
      back = back + 1
    end
  end
end
write_counts(counts, kept)
return { back, ends }
