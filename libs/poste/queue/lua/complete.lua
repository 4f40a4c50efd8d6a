#!lua flags=allow-oom
-- Stores what handlers ended with, and takes each task off its consumer's list, in one write. It needs RUNNING and this
-- very token (fencing: the result of a consumer whose task was claimed anew meanwhile is refused); a replay under the token
-- that won answers the same. Never creates a record.
-- KEYS: 1 counts, 2 kept, 3 delayed, 4 dead, then for each task: record, taken:<incarnation of its token>
-- ARGV: for each task: key, token, outcome, payload, terms
--   outcome: 'ok' (payload: response) | 'cancelled' | 'final' (payload: error)
--          | 'large' (payload: error): it answered with more than can be kept; or, all with the error,
--          | 'schema': it was not run, for the schema that it was accepted under is broken by the one here; no attempt is counted
--          | 'retry' (a later try may go better) | 'defect' (it failed unexpectedly: an exception, no answer in time)
--          | 'silent' (it ended without saying whether it had run) | 'overdue' (silent, for its time was over)
--   terms, for the last four: '<max failures, 0 for any> <max defects> <first backoff> <longest backoff> <random> <code>',
--          in ms; the random number is in [0, 1), the code is the error's, for the history
-- A task whose handler fails is tried again for as long as it may wait, and unexpected failures are counted: a day of
-- tries does not mend a defect.
-- Returns {for each: 'succeeded' | 'cancelled' | 'failed' | 'dead' | 'retried' | 'replayed' | 'refused', what
--   ended otherwise than by its handler's answer (`ends`)}

local counts, kept, delayed, dead = unpack(KEYS, 1, 4)
local now = now_ms()

local function numbers(text)
  local found = {}
  for number in string.gmatch(text, '%S+') do
    found[#found + 1] = tonumber(number)
  end
  return found
end

local function fail(record, key, outcome, payload, terms)
  local once, stop, failures, defects, expiry = fields_of(record, 'n', 'w', 'f', 'i', 'x')
  if outcome == 'schema' then
    redis.call('HDEL', record, 'b')
    redis.pcall('HINCRBY', record, 'a', -1)
    if stop then
      finish(record, 'C', now)
      return 'cancelled'
    end
    dead_letter(record, dead, key, 'schema-changed', now, 'e', payload)
    return 'dead'
  end
  if once and (outcome == 'silent' or outcome == 'overdue') then
    dead_letter(record, dead, key, 'outcome-unknown', now, 'e', payload)
    return 'dead'
  end
  if outcome == 'large' then
    dead_letter(record, dead, key, 'response-too-large', now, 'e', payload)
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
  local max_failures, max_defects, backoff, max_backoff, random, code = unpack(numbers(terms))
  expiry, failures, defects = number(expiry) or now, (number(failures) or 0) + 1, number(defects) or 0
  if outcome == 'defect' or outcome == 'overdue' then
    defects = defects + 1
    redis.call('HSET', record, 'i', defects)
  end
  if (max_failures > 0 and failures >= max_failures) or defects >= max_defects or now >= expiry then
    dead_letter(record, dead, key, 'attempts', now, 'e', payload, 'f', failures)
    return 'dead'
  end
  -- Between half of it and all of it: apart from others', and never so short that it is as good as no wait. Due at the
  -- latest when the task's time is over, so that it is settled then.
  local wait = (0.5 + random / 2) * math.min(max_backoff, backoff * 2 ^ (failures - 1))
  append_event(record, 'r', now, code)
  count_done('retried')
  redis.call('HDEL', record, 't')
  redis.call('HSET', record, 's', 'Q', 'f', failures, 'e', payload)
  count_waiting(record, 1)
  redis.call('ZADD', delayed, math.min(now + math.floor(wait), expiry), key)
  return 'retried'
end

local function complete(record, taken, key, token, outcome, payload, terms)
  local state, holder, create, ttl, waited, failures, client =
    fields_of(record, 's', 't', 'c', 'r', 'l', 'f', 'C')
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
    if failures then
      redis.call('HDEL', record, 'e')
    end
    write_end(record, 'S', now, create, ttl, waited, client, #payload, 'o', payload)
    return 'succeeded'
  elseif outcome == 'cancelled' then
    write_end(record, 'C', now, create, ttl, waited, client)
    return 'cancelled'
  end
  return fail(record, key, outcome, payload, terms)
end

local results = {}
for i = 5, #KEYS, 2 do
  local at = 1 + (i - 5) / 2 * 5
  results[#results + 1] =
    complete(KEYS[i], KEYS[i + 1], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
write_counts(counts, kept)
return { results, ends }
