#!lua flags=allow-oom
-- Stores what came of telling clients' URLs of ends. Who was given an end too late, for its lease was over, may say so all the
-- same: it was told, or it was not. What an operator has had run again meanwhile is told of its next end.
-- KEYS: 1 callbacks, 2 undelivered, 3 counts, 4 kept, then records
-- ARGV: for each record: key, when the end was that it is about, in ms, outcome, a random number in [0, 1), what went wrong or '',
--     how long to put it off in ms
--   outcome: 'told' | 'failed' (tried again with a back-off, for a day) | 'refused' (not tried again)
--     | 'put-off' (it was not tried, and counts as no failure: it is due again after a while)
-- Returns for each: 'told' | 'again' | 'undelivered' | 'gone' (no record, or another end is to be told)

-- The first back-off and the longest, and for how long it is tried, in ms.
local BACKOFF, MAX_BACKOFF, TRIED_FOR = 5000, 3600000, 86400000

local callbacks, undelivered, counts, kept = unpack(KEYS, 1, 4)
local now = now_ms()

-- What was kept for the callback alone goes, and the rest has the time that its result has.
local function release(record)
  local state, ended, create, ttl, expiry, client = fields_of(record, 's', 'z', 'c', 'r', 'j', 'C')
  expiry = number(expiry)
  if state == 'D' or not expiry then
    return
  end
  local size = redis.call('HSTRLEN', record, 'o') + redis.call('HSTRLEN', record, 'e') + redis.call('HSTRLEN', record, 'q')
  local due = kept_until(number(ended) or now, create, ttl)
  count_kept(record, client, -1, expiry, ttl, size)
  redis.call('HDEL', record, 'j', 'N')
  redis.call('PEXPIREAT', record, due)
  if due > now then
    count_kept(record, client, 1, due, ttl, size)
  end
end

-- Between half of a time and all of it from now on: apart from others'.
local function after(wait, random)
  return now + math.floor((0.5 + random / 2) * wait)
end

local function settle(record, key, ended, outcome, random, why, wait)
  local state, last_end, notes = fields_of(record, 's', 'z', 'N')
  if not state or not is_final(state) or last_end ~= ended then
    if not state then
      drop_callback(record)
    end
    return 'gone'
  end
  if outcome == 'told' then
    drop_callback(record)
    release(record)
    count_done('told')
    return 'told'
  end
  if outcome == 'put-off' then
    redis.call('ZADD', callbacks, 'XX', after(wait, random), key)
    return 'again'
  end
  local tries, since = string.match(notes or '', '^(%d+) (%d+)')
  tries, since = (tonumber(tries) or 0) + 1, tonumber(since) or now
  redis.call('HSET', record, 'N', string.format('%d %d %s', tries, since, why))
  local due = after(math.min(MAX_BACKOFF, BACKOFF * 2 ^ math.min(tries - 1, 20)), random)
  if outcome == 'failed' and due < since + TRIED_FOR then
    redis.call('ZADD', callbacks, 'XX', due, key)
    return 'again'
  end
  if redis.call('ZREM', callbacks, key) == 1 then
    redis.call('ZADD', undelivered, now, key)
    count_done('undelivered')
  end
  return 'undelivered'
end

local results = {}
for i = 5, #KEYS do
  local at = 1 + (i - 5) * 6
  local random, wait = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 5])
  results[#results + 1] = settle(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], random, ARGV[at + 4], wait)
end
write_counts(counts, kept)
return results
