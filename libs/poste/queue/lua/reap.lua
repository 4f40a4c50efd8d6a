#!lua flags=allow-oom
-- Takes back what stands in the list of an incarnation whose lease is over. It becomes a grave, whose list is swept on
-- every pass: a killed process' last BLMOVE may still arrive.
-- KEYS: 1 leases, 2 graves, 3 ready, 4 counts, 5 dead, 6 taken:<incarnation>, 7… records
-- ARGV: 1 incarnation, 2 max crashes, then for each record: key
-- Returns for each: 'requeued' | 'crashed' | 'dead' | 'cancelled' | 'dropped' | 'gone'; nothing if the lease holds

local leases, graves, ready, counts, dead, taken = unpack(KEYS, 1, 6)
local gone, max_crashes = ARGV[1], tonumber(ARGV[2])
local now = now_ms()

local lease = redis.call('ZSCORE', leases, gone)
if lease and tonumber(lease) > now then
  return {}
end
if redis.call('ZREM', leases, gone) == 1 or not redis.call('ZSCORE', graves, gone) then
  redis.call('ZADD', graves, now, gone)
end

local function reap(record, key)
  if redis.call('LREM', taken, -1, key) == 0 then
    return 'gone'
  end
  local state, token, once, stop, suspect, crashes =
    unpack(redis.call('HMGET', record, 's', 't', 'n', 'w', 'u', 'k'))
  if not state or is_final(state) then
    return 'dropped'
  end
  if state == 'Q' then
    -- Taken and never claimed: its handler did not start, so nothing is counted.
    redis.call('RPUSH', ready, key)
    return 'requeued'
  end
  if stop then
    count_running(counts, -1)
    finish(record, 'C', now)
    return 'cancelled'
  end
  if once then
    count_running(counts, -1)
    bury(record, dead, key, 'outcome-unknown', now)
    return 'dead'
  end
  if owner_of(token) == gone then
    if suspect then
      -- A suspect is claimed only alone, so this crash is its own.
      crashes = tonumber(crashes or 0) + 1
      redis.call('HSET', record, 'k', crashes)
      if crashes >= max_crashes then
        count_running(counts, -1)
        bury(record, dead, key, 'crashes', now)
        return 'dead'
      end
    else
      redis.call('HSET', record, 'u', '1')
    end
    requeue(record, ready, counts, key)
    return 'crashed'
  end
  requeue(record, ready, counts, key)
  return 'requeued'
end

local results = {}
for i = 7, #KEYS do
  results[#results + 1] = reap(KEYS[i], ARGV[i - 4])
end
return results
