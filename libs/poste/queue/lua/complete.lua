#!lua flags=allow-oom
-- Stores what handlers ended with, and takes each task off its consumer's list, in one write. It needs RUNNING and this
-- very token; a replay under the token that won answers the same. Never creates a record.
-- KEYS: 1 counts, 2 delayed, 3 dead, then for each task: record, taken:<incarnation of its token>
-- ARGV: 1 max failures, 2 first backoff in ms, 3 longest backoff in ms,
--       then for each task: key, token, outcome, payload, a random number in [0, 1)
--   outcome: 'ok' (payload: response) | 'cancelled' | 'final' (payload: error)
--          | 'retry' (may go better later) | 'silent' (ended without saying whether it had run; both with the error)
-- Returns for each: 'succeeded' | 'cancelled' | 'failed' | 'dead' | 'retried' | 'replayed' | 'refused'

local counts, delayed, dead = KEYS[1], KEYS[2], KEYS[3]
local max_failures, backoff, max_backoff = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()

local function fail(record, key, outcome, payload, random)
  local once, stop, failures, expire = unpack(redis.call('HMGET', record, 'n', 'w', 'f', 'x'))
  if once and outcome == 'silent' then
    bury(record, dead, key, 'outcome-unknown', now, 'e', payload)
    return 'dead'
  end
  if once or outcome == 'final' then
    finish(record, 'F', now, 'e', payload)
    return 'failed'
  end
  if stop then
    finish(record, 'C', now, 'e', payload)
    return 'cancelled'
  end
  failures = tonumber(failures or 0) + 1
  if failures >= max_failures then
    bury(record, dead, key, 'attempts', now, 'e', payload, 'f', failures)
    return 'dead'
  end
  -- Full jitter; due at the latest when the task expires, so that it is settled then.
  local wait = random * math.min(max_backoff, backoff * 2 ^ (failures - 1))
  note(record, 'r', now)
  count_done('retried')
  redis.call('HDEL', record, 't', 'e')
  redis.call('HSET', record, 's', 'Q', 'f', failures)
  count_waiting(record, 1)
  redis.call('ZADD', delayed, math.min(now + math.floor(wait), tonumber(expire)), key)
  return 'retried'
end

local function complete(record, taken, key, token, outcome, payload, random)
  local state, holder, ttl, waited = unpack(redis.call('HMGET', record, 's', 't', 'r', 'l'))
  if not state or is_final(state) then
    redis.call('LREM', taken, -1, key)
    return state and holder == token and 'replayed' or 'refused'
  end
  if state ~= 'R' or holder ~= token then
    return 'refused'
  end
  redis.call('LREM', taken, -1, key)
  count_running(-1)
  if outcome == 'ok' then
    write_end(record, 'S', now, ttl, waited, 'o', payload)
    return 'succeeded'
  elseif outcome == 'cancelled' then
    write_end(record, 'C', now, ttl, waited)
    return 'cancelled'
  end
  return fail(record, key, outcome, payload, random)
end

local results = {}
for i = 4, #KEYS, 2 do
  local at = 4 + (i - 4) / 2 * 5
  results[#results + 1] =
    complete(KEYS[i], KEYS[i + 1], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]))
end
write_counts(counts)
return results
