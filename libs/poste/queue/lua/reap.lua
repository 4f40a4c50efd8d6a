#!lua flags=allow-oom
-- The reaper's step: takes back the in-flight tasks of a dead consumer, what stands in the list of an incarnation whose lease
-- is over. It is noted as reaped, and its list is swept on every pass: a killed process' last BLMOVE may still arrive.
-- KEYS: 1 leases, 2 reaped, 3 ready, 4 counts, 5 kept, 6 dead, 7 taken:<incarnation>, 8… records
-- ARGV: 1 incarnation, 2 max crashes, then for each record: key
-- A task was alone if nothing else in the list had been claimed, and begun. Only crashes suffered alone count towards the limit:
-- poison must not take its neighbours along.
-- Returns {for each: 'requeued' | 'crashed' | 'dead' | 'cancelled' | 'dropped' | 'gone'; none if the
--   lease holds, what ended (`ends`)}

local leases, reaped, ready, counts, kept, dead, taken = unpack(KEYS, 1, 7)
local FIXED_KEYS, FIXED_ARGS = 7, 2
local gone, max_crashes = ARGV[1], tonumber(ARGV[2])
local now = now_ms()

local lease = redis.call('ZSCORE', leases, gone)
if lease and tonumber(lease) > lease_clock(counts, now) then
  return { {}, {} }
end
if redis.call('ZREM', leases, gone) == 1 or not redis.call('ZSCORE', reaped, gone) then
  redis.call('ZADD', reaped, now, gone)
end

local claimed = 0
for i = FIXED_KEYS + 1, #KEYS do
  local state, token, known_by = fields_of(KEYS[i], 's', 't', 'h')
  if state == 'R' and owner_of(token) == gone and not has_not_begun(known_by) then
    claimed = claimed + 1
  end
end
local alone = claimed == 1 and redis.call('LLEN', taken) == #KEYS - FIXED_KEYS

local function reap(record, key)
  if redis.call('LREM', taken, -1, key) == 0 then
    return 'gone'
  end
  local state, token, once, stop, known_by = fields_of(record, 's', 't', 'n', 'w', 'h')
  if not state or is_final(state) then
    return 'dropped'
  end
  if state == 'Q' then
    -- Taken and never claimed: its handler did not start, so nothing is counted.
    redis.call('RPUSH', ready, key)
    return 'requeued'
  end
  if stop then
    count_running(-1)
    finish(record, 'C', now)
    return 'cancelled'
  end
  if has_not_begun(known_by) then
    unclaim(record)
    redis.call('RPUSH', ready, key)
    return 'requeued'
  end
  if once then
    count_running(-1)
    dead_letter(record, dead, key, 'outcome-unknown', now)
    return 'dead'
  end
  if owner_of(token) == gone then
    local crashes = redis.pcall('HINCRBY', record, alone and 'k' or 'u', 1)
    if type(crashes) ~= 'number' then
      give_up_damaged(record, dead, key, now, state)
      return 'dead'
    elseif crashes >= max_crashes and alone then
      count_running(-1)
      dead_letter(record, dead, key, 'crashes', now)
      return 'dead'
    end
    requeue(record, ready, key, 'c', now)
    local method, attempts, id, request_id = fields_of(record, 'm', 'a', 'g', 'G')
    ends[#ends + 1] = { record, 'c', '', method, attempts, id, request_id }
    return 'crashed'
  end
  requeue(record, ready, key, 'g', now)
  return 'requeued'
end

local results = {}
for i = FIXED_KEYS + 1, #KEYS do
  local became = reap(KEYS[i], ARGV[i - FIXED_KEYS + FIXED_ARGS])
  results[#results + 1] = became
  if became ~= 'gone' and became ~= 'dropped' then
    count_done('reaped:' .. became)
  end
end
write_counts(counts, kept)
return { results, ends }
