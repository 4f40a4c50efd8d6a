-- Put before every script. What the steps of a task's life have in common. In front of it stand the constants that they share
-- with Python: CALLBACK, CALLBACK_KEPT_SECONDS, ENDED, MIN_RECORD_SECONDS, MOVED_KEY_SECONDS, MOVED_SECONDS,
-- RECORD_BYTES, SUSPECT_AFTER (`poste/queue/scripts.py`).
--
-- The record (hash <prefix>:{q}:task:<key>): its fields have one letter each; `poste/queue/record.py` has a table of them.
-- The counts (hash <prefix>:{q}:counts): waiting, bytes (of the waiting requests), running, dead_bytes (what the DEAD take), held
-- (those of the DEAD that are held aside, for their method's schema changed),
-- ended_bytes (what all that ended takes: the DEAD, and what is kept), pass (time of the last pass), clock (the leases' clock
-- at the last pass), step (by how much it moves at most until the next), budget (how many bytes what ended may take, by the
-- last pass), paused ('1' while it is), purged (up to when what had ended was purged, ms), moved (the queues that tasks of this
-- one were moved to, a space between them); by when a method's pace allows as
-- many at once as ever, ms: @<method> (`take_lane`); and what was ever done, for the metrics: +<what>.
-- What ended and is kept for its result's TTL (hash <prefix>:{q}:kept): how many there are, and `b` how many bytes they take, by
-- the stretch of time in which their TTLs end (see `count_kept`).
-- A client's account (hash <prefix>:{q}:client:<client>): what is counted above of those calls alone that it made under a quota,
-- which is what their records say (`C`): waiting, bytes, dead_bytes, and by stretch how many bytes are kept.
-- Time is Redis' own, in every script. An id's create time may be a little ahead of it; so is all that is counted from it.

local MAX_NOTES = 20

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(state)
  return state ~= 'Q' and state ~= 'R'
end

-- What stands in a record may be written by another program, or damaged. No step may end with an error for it: all that it
-- is done for would stand still. So fields are read by these two, and what can't be read is given up (`give_up_damaged`).

-- The whole number that a field is; nil if it is none.
local function number(value)
  local found = tonumber(value)
  return found and found >= 0 and found < 1e15 and math.floor(found) or nil
end

-- Whether a field may be a method's short name.
local function is_method(value)
  return value and string.find(value, '^[%w_]+$') ~= nil
end

-- Some fields of a record, as HMGET has them; none at all of what is no hash.
local function fields_of(record, ...)
  local found = redis.pcall('HMGET', record, ...)
  return unpack(found.err and {} or found, 1, select('#', ...))
end

-- The clock that leases go by, in ms: time in which this store was there to be asked. It stands still from `step` after each
-- pass until the next one, for what keeps the passes away (a store that is killed, or hangs, or a middleware that is gone)
-- may keep the owners from renewing as well; and they need time afterwards. So an absence ends no lease, however long it was.
local function lease_clock(counts, now)
  local pass, clock, step = unpack(redis.call('HMGET', counts, 'pass', 'clock', 'step'))
  if not clock then
    return now
  end
  return clock + math.max(0, math.min(now - pass, tonumber(step)))
end

-- The incarnation that a token names.
local function owner_of(token)
  return token and string.match(token, '^(.*):%d+$')
end

-- Which run of the server this is: another one has been started since, or has taken over, and may lack the last writes.
local function this_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
end

-- Whether it is proved that a claimed task that must not run twice has not begun. Its claim notes (`h`) who would know: '*' if
-- whatever was answered is on disk, else this run of the server alone, for the last writes may be lost with it.
-- `begin` takes that away before the handler starts.
local function has_not_begun(known_by)
  return known_by == '*' or (known_by and known_by == this_run()) or false
end

-- Whether no task is started now: an operator paused the queue, or what ended in it takes as much as it may (`tick`). Only what
-- ended is judged: were what waits as well, a queue that is full of calls would never start one of them.
local function stands_still(counts)
  local paused, ended, budget = unpack(redis.call('HMGET', counts, 'paused', 'ended_bytes', 'budget'))
  budget = number(budget)
  return paused or (budget and (number(ended) or 0) >= budget) or false
end

-- By how much this script changes the counts: written once, by `write_counts`, with which every script that counts ends
-- (but `enqueue`: it has read them, and writes what they are).
local change = { waiting = 0, bytes = 0, running = 0, dead_bytes = 0, held = 0, ended_bytes = 0 }
-- And by how much those of what is kept: by stretch, {how many, their bytes}.
local kept_change = {}

-- And by how much clients' accounts, by their keys. It is counted there by the functions that count it for the queue, by what the
-- record says and not by the client's quota of today: so what a call put on its account it takes off again, however it ends.
local account_changes = {}

-- The key of a client's account in the queue of a record.
local function account_of(record, client)
  return string.match(record, '^(.*:)task:') .. 'client:' .. client
end

-- Counts something of a record in its client's account; `client` is its C, false if it has none.
local function count_for(client, record, name, by)
  if client then
    local account = account_of(record, client)
    local changed = account_changes[account] or {}
    name = tostring(name)
    changed[name] = (changed[name] or 0) + by
    account_changes[account] = changed
  end
end

-- QUEUED begins or ends: `sign` is 1 or -1, `size` the bytes of its request and `client` its C, if they are known.
local function count_waiting(record, sign, size, client)
  size = size or redis.call('HSTRLEN', record, 'q')
  if client == nil then
    client = redis.call('HGET', record, 'C')
  end
  change.waiting = change.waiting + sign
  change.bytes = change.bytes + sign * size
  count_for(client, record, 'waiting', sign)
  count_for(client, record, 'bytes', sign * size)
end

local function count_running(sign)
  change.running = change.running + sign
end

-- Counts something that the metrics show, in the very step that does it: so the figure is right whatever process dies when.
local function count_done(what)
  change['+' .. what] = (change['+' .. what] or 0) + 1
end

-- Something begins to be kept, or (`sign` is -1) is no longer: `expiry` is when its record's TTL is over, in ms, `ttl` its
-- result's in s, `size` the bytes of its response and error, `client` its C. Redis notifies no client of expired records. So it is counted
-- under the stretch of time in which it will, and the pass drops the figures of stretches that are over (`tick`): they need no
-- list of what is kept, and can't drift. A stretch is between a 64th and a 32nd of the TTL long: few in all, however long
-- TTLs are; and the figure of what is kept is too high by at most that much.
local STRETCHES = 64
-- How long the stretches are, in s, by the TTL: most tasks of a script have the same.
local lengths = {}

local function count_kept(record, client, sign, expiry, ttl, size)
  local length = lengths[ttl]
  if not length then
    local _, power = math.frexp((number(ttl) or 0) / STRETCHES)
    length = 2 ^ math.max(power, 0)
    lengths[ttl] = length
  end
  local stretch = math.ceil(expiry / 1000 / length) * length
  local counted = kept_change[stretch]
  if not counted then
    counted = { 0, 0 }
    kept_change[stretch] = counted
  end
  local by = sign * (RECORD_BYTES + size)
  counted[1], counted[2] = counted[1] + sign, counted[2] + by
  change.ended_bytes = change.ended_bytes + by
  count_for(client, record, stretch, by)
end

-- A DEAD task keeps its request, and its error.
local function count_dead(record, sign)
  local size = redis.call('HSTRLEN', record, 'q') + redis.call('HSTRLEN', record, 'e')
  local by = sign * (RECORD_BYTES + size)
  change.dead_bytes, change.ended_bytes = change.dead_bytes + by, change.ended_bytes + by
  local reason, client = fields_of(record, 'd', 'C')
  if reason == 'schema-changed' then
    change.held = change.held + sign
  end
  count_for(client, record, 'dead_bytes', by)
end

-- Adds to several fields of a hash in one write: one for each would cost as much again, and more of the AOF. What stood there
-- and is no number begins anew.
local function add(hash, names, changes)
  if #names == 0 then
    return
  end
  local found, fields = redis.call('HMGET', hash, unpack(names)), {}
  for i, name in ipairs(names) do
    fields[2 * i - 1], fields[2 * i] = name, (number(found[i]) or 0) + changes[i]
  end
  redis.call('HSET', hash, unpack(fields))
end

-- What stands in an account, by name: 0 for what is kept no longer.
local function read_account(account, now)
  local found, has = redis.call('HGETALL', account), {}
  for i = 1, #found, 2 do
    local stretch = tonumber(found[i])
    has[found[i]] = stretch and stretch * 1000 <= now and 0 or number(found[i + 1]) or 0
  end
  return has
end

-- An account has no more than what is there: what is 0 goes, and one in which nothing waits or is dead goes by itself with the last
-- of what is kept.
local function write_accounts()
  for account, changed in pairs(account_changes) do
    local has = read_account(account, now_ms())
    for name, by in pairs(changed) do
      has[name] = math.max((has[name] or 0) + by, 0)
    end
    local fields, gone, last, stays = {}, {}, 0, false
    for name, value in pairs(has) do
      local stretch = tonumber(name)
      if value == 0 then
        gone[#gone + 1] = name
      elseif changed[name] then
        fields[#fields + 1], fields[#fields + 2] = name, value
      end
      if value > 0 then
        last, stays = math.max(last, stretch or 0), stays or not stretch
      end
    end
    if #gone > 0 then
      redis.call('HDEL', account, unpack(gone))
    end
    if #fields > 0 then
      redis.call('HSET', account, unpack(fields))
    end
    if stays then
      redis.call('PERSIST', account)
    else
      redis.call('PEXPIREAT', account, last * 1000)
    end
  end
end

-- `kept` need not be named by what ends nothing.
local function write_counts(counts, kept)
  local names, changes = {}, {}
  for name, by in pairs(change) do
    if by ~= 0 then
      names[#names + 1], changes[#changes + 1] = name, by
    end
  end
  add(counts, names, changes)
  names, changes = {}, {}
  for stretch, counted in pairs(kept_change) do
    local at = #names
    names[at + 1], changes[at + 1] = stretch, counted[1]
    names[at + 2], changes[at + 2] = stretch .. 'b', counted[2]
  end
  add(kept, names, changes)
  write_accounts()
end

-- Moves what waits longest, `count` at most (from 1 to 1000), to a consumer's own list; returns the keys. RPOP frees first,
-- so unlike BLMOVE it is not refused at `maxmemory`.
local function take(ready, taken, count)
  local keys = redis.call('RPOP', ready, count) or {}
  if #keys > 0 then
    redis.call('LPUSH', taken, unpack(keys))
  end
  return keys
end

-- Keeps what became of an attempt that did not end the task: `<event> <attempt> <when it began, or ''> <now>` and perhaps a
-- word, for each; a `;` behind each, and one in front of all if earlier ones were dropped. Only what was out of the ordinary
-- is kept, so an ordinary record does not grow by it.
--   r retried (the word: the code of its error) · c crashed · g given back · d died (the word: why) · f failed · p replayed
local function append_event(record, event, now, word)
  local attempt, begin, notes = unpack(redis.call('HMGET', record, 'a', 'b', 'v'))
  notes = (notes or '') .. event .. ' ' .. (attempt or 0) .. ' ' .. (begin or '') .. ' ' .. now .. ' ' .. (word or '') .. ';'
  local _, count = string.gsub(notes, '[^;]+;', '')
  if count > MAX_NOTES then
    notes = string.gsub(notes, '^;?[^;]+;', ';')
  end
  redis.call('HDEL', record, 'b')
  redis.call('HSET', record, 'v', notes)
end

-- When the record of a task that ended (`at`, ms) is dropped, in ms.
local function kept_until(at, create, ttl)
  return math.max(math.max(at, number(create) or at) + (number(ttl) or 0) * 1000, at + MIN_RECORD_SECONDS * 1000)
end

-- Tells who waits for a task that it is to be read: on the channel of the Poste whose record it is. In front of the queue's name
-- stands its prefix.
local function publish(record)
  redis.call('PUBLISH', string.match(record, '^(.-):{') .. ENDED, record)
end

-- Of a record: what is due to be told of ends to their clients' URLs, what could not be told, and its own key in both.
local function callbacks_of(record)
  local place, key = string.match(record, '^(.*:)task:(.*)$')
  return place .. 'callbacks', place .. 'undelivered', key
end

-- No more tells a record's end: it is neither due to be told nor one that could not be; returns whether it was either.
local function drop_callback(record)
  local callbacks, undelivered, key = callbacks_of(record)
  return redis.call('ZREM', callbacks, key) + redis.call('ZREM', undelivered, key) > 0
end

-- Notes that a record, which would be dropped at `expiry`, is kept until its end was told; returns until when, at most, in ms.
local function kept_for_callback(record, expiry, now)
  expiry = math.max(expiry, now + CALLBACK_KEPT_SECONDS * 1000)
  redis.call('HSET', record, 'j', expiry)
  return expiry
end

-- Ends a task, with whatever else there is to be written. DEAD and FAILED ones keep their request, for a replay. A DEAD one has
-- no TTL; any other lives as long as its result (`ttl`, in seconds), and long enough for a late enqueue of the same id to find
-- it; and until its client's URL was told, if that is owed. A result is not kept for less than its id promises, were that made
-- (`create`) in the future. `size`: the bytes of response and error that are kept, if they are known. `waited`: who is to be told
-- of the end (`l`). `client`: its C.
local function write_end(record, state, now, create, ttl, waited, client, size, ...)
  count_done(state)
  if state == 'D' then
    redis.call('HSET', record, 's', state, 'z', now, ...)
    count_dead(record, 1)
  else
    local expiry = kept_until(now, create, ttl)
    if waited == CALLBACK then
      expiry = kept_for_callback(record, expiry, now)
    end
    redis.call('PEXPIREAT', record, expiry)
    if state == 'F' then
      redis.call('HSET', record, 's', state, 'z', now, 'K', '1', ...)
      size = redis.call('HSTRLEN', record, 'e') + redis.call('HSTRLEN', record, 'q')
    else
      redis.call('HSET', record, 's', state, 'z', now, 'q', '', ...)
    end
    count_kept(record, client, 1, expiry, ttl, size or redis.call('HSTRLEN', record, 'e'))
  end
  if waited then
    publish(record)
  end
  if waited == CALLBACK then
    local callbacks, _, key = callbacks_of(record)
    redis.call('ZADD', callbacks, now, key)
  end
end

-- Takes a DEAD or FAILED task off what is kept of the ended ones; returns the letter of the event that its end was, nil if its
-- request is no longer kept.
local function take_back(record, dead, key, state, now)
  if state == 'F' then
    local keeps, create, ttl, ended, expiry, client = fields_of(record, 'K', 'c', 'r', 'z', 'j', 'C')
    if not keeps then
      return nil
    end
    local size = redis.call('HSTRLEN', record, 'e') + redis.call('HSTRLEN', record, 'q')
    count_kept(record, client, -1, number(expiry) or kept_until(number(ended) or now, create, ttl), ttl, size)
    redis.call('HDEL', record, 'j')
    redis.call('PERSIST', record)
    return 'f'
  elseif redis.call('ZREM', dead, key) == 0 then
    return nil
  end
  count_dead(record, -1)
  return 'd'
end

-- What this script ended without a handler's answer, or 'c': took back from a process that died during an attempt. The caller
-- logs these (`poste/queue/ends.py`):
-- {record, state, why it is dead, or 'operator' if one cancelled it, or '', method, attempts, its id without the queue's name, the id of its client's request}.
local ends = {}

local function finish(record, state, now, ...)
  local create, ttl, waited, method, attempts, id, request_id, client =
    unpack(redis.call('HMGET', record, 'c', 'r', 'l', 'm', 'a', 'g', 'G', 'C'))
  write_end(record, state, now, create, ttl, waited, client, nil, ...)
  ends[#ends + 1] = { record, state, '', method, attempts, id, request_id }
end

local function dead_letter(record, dead, key, reason, now, ...)
  finish(record, 'D', now, 'd', reason, ...)
  ends[#ends][3] = reason
  count_done('dead:' .. reason)
  redis.call('ZADD', dead, now, key)
end

-- Gives up a task whose record can't be read, for good: with what it lacks made up, so that it can be shown.
local function give_up_damaged(record, dead, key, now, state, size)
  if state == 'Q' then
    count_waiting(record, -1, size)
  elseif state == 'R' then
    count_running(-1)
  end
  local method, create, expiry, ttl, wait, attempts = unpack(redis.call('HMGET', record, 'm', 'c', 'x', 'r', 'y', 'a'))
  redis.call('HSET', record, 'm', is_method(method) and method or '?', 'c', number(create) or now, 'x', number(expiry) or now,
    'r', number(ttl) or 0, 'y', number(wait) or 0, 'a', number(attempts) or 0)
  dead_letter(record, dead, key, 'damaged', now)
end

-- Settles a waiting task that is overdue; returns the state. One whose handler failed until now did not end because its
-- service was away: it was given up, and is kept for its operator with its last error.
local function expire(record, dead, key, now, size)
  count_waiting(record, -1, size)
  if redis.call('HEXISTS', record, 'f') == 1 then
    dead_letter(record, dead, key, 'attempts', now)
    return 'D'
  end
  finish(record, 'E', now)
  return 'E'
end

-- A task that was claimed and has not begun is one that waits, as if it had not been claimed; where, its caller decides.
local function unclaim(record)
  redis.call('HDEL', record, 't', 'h', 'b')
  redis.call('HSET', record, 's', 'Q')
  redis.pcall('HINCRBY', record, 'a', -1)
  count_running(-1)
  count_waiting(record, 1)
end

-- A task that ran waits again; its place is at the front, for it is older than what waits there.
local function requeue(record, ready, key, event, now)
  append_event(record, event, now)
  redis.call('HDEL', record, 't', 'h')
  redis.call('HSET', record, 's', 'Q')
  count_running(-1)
  count_waiting(record, 1)
  redis.call('RPUSH', ready, key)
end
