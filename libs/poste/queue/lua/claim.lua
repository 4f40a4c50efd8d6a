#!lua flags=allow-oom
-- Claims taken tasks for a consumer. Possession is ownership: only a key that stands in taken:<incarnation> of an
-- incarnation with a lease is claimed, and then whatever is not final. Idempotent by the token <incarnation>:<seq>, which
-- the claimer names. It is the fencing token of the claim: a lower seq than the record's is refused, and `complete` accepts
-- a result under the record's token only. A consumer without a lease is fenced off: it gets 'fenced', and must drop its tasks.
-- What must not run twice is claimed many at a time as well, and has not begun by that: `begin` has each begin, one after the
-- other, once its claim is on disk. So a process that dies takes along what had begun and one more at most, be there ever so
-- many in its list. What may run twice begins at once: it only runs again.
-- While there is a backlog it first takes, as `take` does, what the claimer saw at the queue's front and names last:
-- one step and one fsync instead of two. Those that another consumer took meanwhile are dropped; what was taken instead is
-- returned, to be claimed next. Taking is not idempotent: if its answer is lost, the consumer's reconciling finds what was taken.
-- A task of a method that has no turn now is *parked*: its key goes to the method's lane, and what stood behind it is reached.
-- Its place there is the end, or the front if it failed or crashed before, for then it is older. With methods named for that,
-- what there is no place for goes back to the front of the queue unread, so that many can be looked through at a time.
-- KEYS: 1 leases, 2 taken:<incarnation>, 3 counts, 4 kept, 5 dead, 6 ready, then if methods are to be parked: lanes,
--       lane:<method> of each; then records
-- ARGV: 1 incarnation, 2 '1' if nothing else runs in the process, 3 how many keys at the queue's front to return,
--       4 how many to take first, 5 '1' if what is answered is on disk, 6 how many bytes of requests to return (and the rest of
--       the last one), 7 of how many methods tasks are parked, and if there are any: how many may run, each method;
--       then for each record: key, seq
-- Returns {'fenced'} if there is no lease, else {keys taken and not named, keys at the queue's front, the oldest last,
--   what it ended (`ends`)}, and for each record:
--   {'run', method, request, attempt, create time in ms, '1' if it must not run twice or '', place in a trace or nil, its id
--     without the queue's name or nil, the id of its client's request or nil, the client headers that its handler
--     gets or nil, the fingerprint of the schema that it was accepted under or nil}
--   | {'drop'} | {'damaged'}: it can't be read, and was given up | {'suspect'}: claim it alone
--   | {'parked', method} | {'back'}: in its place again, for there is none for it
--   | {'later'}: nothing was done, for there are too many bytes
--   | {'paused'}: it was put back to its place in the queue, which stands still (`stands_still`)
-- A suspect was there when two processes died: it may be what kills them. (One death says little: it is a deploy far more
-- often than a poison, and running everything that it hit one by one would hold the queue up.)

local KEY_LENGTH = 16
local STATES = { S = true, F = true, C = true, E = true, D = true, M = true }

local leases, taken, counts, kept, dead, ready = unpack(KEYS, 1, 6)
local me, alone = ARGV[1], ARGV[2] == '1'
if not redis.call('ZSCORE', leases, me) then
  return { 'fenced' }
end
local now = now_ms()
local paused, put_back = stands_still(counts), {}
local FIXED_KEYS, FIXED_ARGS = 6, 7
-- The lane of each method whose tasks are parked; how many may run then.
local lane_of, room = nil, math.huge
if ARGV[7] ~= '0' then
  local methods = tonumber(ARGV[7])
  lane_of, room = {}, tonumber(ARGV[8])
  for i = 1, methods do
    lane_of[ARGV[8 + i]] = KEYS[7 + i]
  end
  FIXED_KEYS, FIXED_ARGS = FIXED_KEYS + 1 + methods, FIXED_ARGS + 1 + methods
end
local to_take, bytes_left = tonumber(ARGV[4]), tonumber(ARGV[6])
local knows_begins = ARGV[5] == '1' and '*'
local unnamed = {}
if to_take > 0 then
  local is_named = {}
  for i = FIXED_ARGS + 1, #ARGV, 2 do
    is_named[ARGV[i]] = true
  end
  for _, key in ipairs(take(ready, taken, to_take)) do
    if not is_named[key] then
      unnamed[#unnamed + 1] = key
    end
  end
end
-- The whole list is read once: it is short, and a search for each key costs more.
local stands = {}
for _, key in ipairs(redis.call('LRANGE', taken, 0, -1)) do
  stands[key] = true
end

local function take_off(key)
  redis.call('LREM', taken, -1, key)
  stands[key] = nil
end

local function drop(key)
  take_off(key)
  return { 'drop' }
end

-- Gives up what can't be read: as DEAD, or, if no operator could see it there, by leaving its record alone.
local function put_aside(record, key, state, size)
  take_off(key)
  local kind = redis.call('TYPE', record).ok
  if kind == 'hash' and size then
    give_up_damaged(record, dead, key, now, state, size)
  end
  return { kind == 'none' and 'drop' or 'damaged' }
end

-- Makes it mine, and notes when it began, or that it has not.
local function own(record, token, once)
  if once then
    knows_begins = knows_begins or this_run()
    redis.call('HSET', record, 's', 'R', 't', token, 'h', knows_begins)
  else
    redis.call('HSET', record, 's', 'R', 't', token, 'b', now)
  end
end

local function run(method, request, attempts, create, once, trace, id, request_id, headers, schema)
  bytes_left = bytes_left - #request
  return { 'run', method, request, attempts, create, once or '', trace, id, request_id, headers, schema }
end

-- What is parked: {key, its lane, whether it is older than what stands there}, the oldest first.
local parked = {}

local function put_in_lanes()
  for _, one in ipairs(parked) do
    if not one[3] then
      redis.call('LPUSH', one[2], one[1])
    end
  end
  for i = #parked, 1, -1 do
    if parked[i][3] then
      redis.call('RPUSH', parked[i][2], parked[i][1])
    end
  end
end

-- Parks what waits for its method's turn, and puts back what there is no place for; nil if it is to be claimed. Only what
-- waits: what is claimed already, and whose answer was lost, is its claimer's.
local function park(record, key)
  local method, state, expiry, failures, alone, company = fields_of(record, 'm', 's', 'x', 'f', 'k', 'u')
  local lane = lane_of[method or '']
  if state ~= 'Q' then
    return nil
  elseif room <= 0 or bytes_left <= 0 then
    take_off(key)
    put_back[#put_back + 1] = key
    return { 'back' }
  elseif not lane or (number(expiry) or 0) <= now then
    return nil
  end
  take_off(key)
  parked[#parked + 1] = { key, lane, failures or alone or company }
  redis.call('SADD', KEYS[7], method)
  return { 'parked', method }
end

local function claim(record, key, seq)
  if not stands[key] then
    return { 'drop' }
  end
  local instead = lane_of and not paused and park(record, key)
  if instead then
    return instead
  end
  if bytes_left <= 0 then
    return { 'later' }
  end
  local state, token, expiry, once, company, stop, attempts, method, create, request, trace, known_by, id, request_id,
    headers, schema, client =
    fields_of(record, 's', 't', 'x', 'n', 'u', 'w', 'a', 'm', 'c', 'q', 'p', 'h', 'g', 'G', 'H', 'V', 'C')
  local due, created, began = number(expiry), number(create), number(attempts or 0)
  company = number(company or 0)
  if not state or is_final(state) then
    return STATES[state] and drop(key) or put_aside(record, key, state, 0)
  elseif #key ~= KEY_LENGTH or string.find(key, '[^%w_-]') then
    -- No consumer could report it, and no listing could show it.
    return put_aside(record, key, state)
  elseif not (due and created and began and company and request and is_method(method)) then
    return put_aside(record, key, state, request and #request or 0)
  end
  local mine = me .. ':' .. seq
  if state == 'R' then
    if token ~= mine then
      local of_mine = owner_of(token) == me
      if of_mine and tonumber(string.match(token, '%d+$')) > tonumber(seq) then
        return { 'drop' }
      end
      if stop then
        count_running(-1)
        finish(record, 'C', now)
        return drop(key)
      end
      -- One of mine: the claim's answer was lost, so its handler never started. Another's: it may have run there.
      if not of_mine and once and not has_not_begun(known_by) then
        count_running(-1)
        dead_letter(record, dead, key, 'outcome-unknown', now)
        return drop(key)
      end
    end
    if token ~= mine then
      redis.call('HDEL', record, 'b')
      own(record, mine, once)
    end
    return run(method, request, began, created, once, trace, id, request_id, headers, schema)
  end
  if due <= now then
    expire(record, dead, key, now, request and #request)
    return drop(key)
  end
  if paused then
    take_off(key)
    put_back[#put_back + 1] = key
    return { 'paused' }
  end
  if company >= SUSPECT_AFTER and not alone then
    return { 'suspect' }
  end
  room = room - 1
  began = began + 1
  count_waiting(record, -1, request and #request, client)
  count_running(1)
  if not once then
    count_done('started')
  end
  redis.call('HSET', record, 'a', began)
  own(record, mine, once)
  return run(method, request, began, created, once, trace, id, request_id, headers, schema)
end

local function front_keys()
  return ARGV[3] == '0' and {} or redis.call('LRANGE', ready, -ARGV[3], -1)
end

-- What goes back because the queue stands still is not to be named next; what goes back for want of a place is.
local front = paused and front_keys()
local results = { {} }
for i = FIXED_KEYS + 1, #KEYS do
  local at = FIXED_ARGS + 1 + (i - FIXED_KEYS - 1) * 2
  results[#results + 1] = claim(KEYS[i], ARGV[at], ARGV[at + 1])
end
put_in_lanes()
-- The claimer names the oldest first, and that is to be taken first again.
for i = #put_back, 1, -1 do
  redis.call('RPUSH', ready, put_back[i])
end
results[1] = { unnamed, front or front_keys(), ends }
write_counts(counts, kept)
return results
