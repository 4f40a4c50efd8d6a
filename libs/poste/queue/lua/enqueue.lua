-- Accepts tasks: writes each record and puts its key at the end of the queue, or of one that may not run yet into `scheduled`
-- with the time from which on it may (`wake`). Idempotent by the key. Alone among the
-- scripts it may be refused for want of memory.
-- KEYS: 1 ready, 2 counts, 3 recent, 4 scheduled, 5… records
-- ARGV: 1 max waiting, 2 max bytes, 3 max bytes of all that the queue holds, 4 max age of an id in ms,
--       5 how many of the newest to remember, 6 '1' if they must be written to the AOF: refused if it is switched off by now
--       then for each record: key, method, request, create time in ms, task TTL in ms, result TTL in s, '1' if it must not run twice,
--       its place in a trace or '', its id without the queue's name or '', the id of its client's request or '',
--       the one field of the response that its client is answered with or '', the client headers that its handler gets or '',
--       the fingerprint of its method's schema or '', of a call with an idempotency key the digest of its request or '';
--       and at the end the fields that few have: which record it is, from 1 on, the field's letter (W the URL that is told of its
--       end, B when it may run at first, in ms, C its client, if that has a quota), its value (of C '<how many calls may wait>
--       <how many bytes all that is held for it may take> <client>', 0 for any number)
-- Returns for each: 'accepted' | 'full' | 'spent' (what it holds: what waits, is dead, or is kept once it ended) | 'clock'
--   | 'over <how many calls of its client wait> <how many bytes it takes>': its client has its quota
--   | 'known <the id of that one, without the queue's name>': another call with its idempotency key and request has the record
--   | 'reused': another call with its idempotency key has it, and another request

local FIXED_KEYS, FIXED_ARGS, PER_RECORD = 4, 6, 14
-- The fields that a record has only if they say something: of the last arguments of each, in their order.
local OPTIONAL = { 'n', 'p', 'g', 'G', 'A', 'H', 'V', 'I' }
-- So many values at most go into one command: Lua's stack bounds what `unpack` gives.
local CHUNK = 1000

if ARGV[6] == '1' and not string.find(redis.call('INFO', 'persistence'), 'aof_enabled:1', 1, true) then
  return redis.error_reply('ERR Redis would lose accepted calls when it stops: appendonly is no, must be yes')
end
local ready, counts, recent, scheduled = unpack(KEYS, 1, 4)
local now = now_ms()
local waiting, bytes, ended, budget = unpack(redis.call('HMGET', counts, 'waiting', 'bytes', 'ended_bytes', 'budget'))
waiting, bytes, ended = number(waiting) or 0, number(bytes) or 0, number(ended) or 0
-- None of them would be started (`stands_still`).
local spent = ended >= (number(budget) or math.huge)
local max_waiting, max_bytes, max_held, max_age, max_recent =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- Whether the record that is there is this call's own: this is a repeat of its own enqueue then. A record's key is made from
-- the idempotency key where there is one, else it is random, and no other call has it. `first`: where the arguments begin of
-- the call that gets the record in this very step; nil if the record is there.
local function compare(record, first, at)
  local id, digest = ARGV[at + 8], ARGV[at + 13]
  if digest == '' then
    return 'accepted'
  end
  local its_id, its_digest
  if first then
    its_id, its_digest = ARGV[first + 8], ARGV[first + 13]
  else
    its_id, its_digest = fields_of(record, 'g', 'I')
  end
  if its_id == id then
    return 'accepted'
  elseif its_digest and its_digest ~= digest then
    return 'reused'
  end
  return 'known ' .. (its_id or '')
end

-- By where the arguments of their records begin: few have one, and a place among these would cost all of them.
local none = {}
local rare = {}
for i = FIXED_ARGS + 1 + (#KEYS - FIXED_KEYS) * PER_RECORD, #ARGV, 3 do
  local at = FIXED_ARGS + 1 + (ARGV[i] - 1) * PER_RECORD
  rare[at] = rare[at] or {}
  rare[at][ARGV[i + 1]] = ARGV[i + 2]
end

-- How many calls of a client wait, and how many bytes it takes, with those that are accepted in this step: by its account.
local totals = {}

local function total_of(record, client)
  local account = account_of(record, client)
  if not totals[account] then
    local has = read_account(account, now)
    -- No client has more than there is: a worker of an older library takes nothing off accounts.
    for name, most in pairs({ waiting = waiting, bytes = bytes }) do
      local excess = (has[name] or 0) - most
      if excess > 0 then
        has[name] = most
        count_for(client, record, name, -excess)
      end
    end
    local total = { waiting = has.waiting or 0, bytes = (has.waiting or 0) * RECORD_BYTES }
    for name, value in pairs(has) do
      total.bytes = total.bytes + (name == 'waiting' and 0 or value)
    end
    totals[account] = total
  end
  return totals[account]
end

-- Puts a call on its client's account; or returns what stands there, if that is as much as the client may have.
local function charge(record, few, size)
  local max_calls, max_taken, client = string.match(few.C, '^(%d+) (%d+) (.*)$')
  max_calls, max_taken = tonumber(max_calls), tonumber(max_taken)
  local total, takes = total_of(record, client), size + RECORD_BYTES
  if (max_calls > 0 and total.waiting >= max_calls) or (max_taken > 0 and total.bytes + takes > max_taken) then
    return string.format('over %d %d', total.waiting, total.bytes)
  end
  total.waiting, total.bytes = total.waiting + 1, total.bytes + takes
  count_for(client, record, 'waiting', 1)
  count_for(client, record, 'bytes', size)
  few.C = client
end

local results, fresh, seen = {}, {}, {}
for i = FIXED_KEYS + 1, #KEYS do
  local at = FIXED_ARGS + 1 + (i - FIXED_KEYS - 1) * PER_RECORD
  local request, create = ARGV[at + 2], tonumber(ARGV[at + 3])
  local result
  if seen[KEYS[i]] or redis.call('EXISTS', KEYS[i]) == 1 then
    result = compare(KEYS[i], seen[KEYS[i]], at)
  elseif math.abs(now - create) > max_age then
    result = 'clock'
  elseif waiting >= max_waiting or bytes + #request > max_bytes then
    result = 'full'
  elseif spent or ended + bytes + #request + (waiting + 1) * RECORD_BYTES > max_held then
    result = 'spent'
  else
    local few = rare[at] or none
    result = few.C and charge(KEYS[i], few, #request) or 'accepted'
    if result == 'accepted' then
      seen[KEYS[i]] = at
      waiting, bytes = waiting + 1, bytes + #request
      fresh[#fresh + 1] = { KEYS[i], at }
    end
  end
  results[#results + 1] = result
end
if #fresh == 0 then
  return results
end

local keys, due = {}, {}
for place, one in ipairs(fresh) do
  local record, at = one[1], one[2]
  local key, few = ARGV[at], rare[at] or none
  local not_before = number(few.B) or 0
  local fields = { 'm', ARGV[at + 1], 'q', ARGV[at + 2], 's', 'Q', 'c', ARGV[at + 3],
    'x', math.max(now, not_before) + ARGV[at + 4], 'y', ARGV[at + 4], 'r', ARGV[at + 5] }
  for i, name in ipairs(OPTIONAL) do
    local value = ARGV[at + 5 + i]
    if value ~= '' then
      fields[#fields + 1], fields[#fields + 2] = name, value
    end
  end
  for name, value in pairs(few) do
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  if few.W then
    fields[#fields + 1], fields[#fields + 2] = 'l', CALLBACK
  end
  redis.call('HSET', record, unpack(fields))
  keys[place] = key
  if not_before > now then
    redis.call('ZADD', scheduled, not_before, key)
  else
    due[#due + 1] = key
  end
end
local function push(list, pushed)
  for first = 1, #pushed, CHUNK do
    redis.call('LPUSH', list, unpack(pushed, first, math.min(first + CHUNK - 1, #pushed)))
  end
end
push(ready, due)
push(recent, keys)
redis.call('LTRIM', recent, 0, max_recent - 1)
redis.call('HSET', counts, 'waiting', waiting, 'bytes', bytes)
redis.pcall('HINCRBY', counts, '+enqueued', #fresh)
write_accounts()
return results
