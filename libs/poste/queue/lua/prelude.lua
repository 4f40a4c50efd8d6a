-- Put before every script. What the steps of a task's life have in common.
--
-- The record (hash poste:{q}:task:<key>):
--   m method · q request · s state · c create time, ms · x when it is given up while it waits, ms · r result TTL, s
--   n '1' if it must not run twice · a attempts · f failures · k crashes suffered alone · u crashes suffered in company
--   t token of its claim · w '1' if a running one was asked to stop · l '1' if somebody waits for its end
--   o response · e error (google.rpc.Status) · d why it is dead · z when it ended, ms
--   y how long it may wait from each replay on, ms
-- The counts (hash poste:{q}:counts): waiting, bytes (of the waiting requests), running, pass (time of the last pass),
-- paused ('1' while it is).
-- Time is Redis' own, in every script.

local MIN_RECORD_SECONDS = 60

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(state)
  return state ~= 'Q' and state ~= 'R'
end

-- The incarnation that a token names.
local function owner_of(token)
  return token and string.match(token, '^(.*):%d+$')
end

-- QUEUED begins or ends: `sign` is 1 or -1.
local function count_waiting(counts, record, sign)
  redis.call('HINCRBY', counts, 'waiting', sign)
  -- Plus 0: less an empty request is -0, which Redis before 7.2 does not take for a number.
  redis.call('HINCRBY', counts, 'bytes', sign * redis.call('HSTRLEN', record, 'q') + 0)
end

local function count_running(counts, sign)
  redis.call('HINCRBY', counts, 'running', sign)
end

-- Ends a task. A DEAD one keeps its request, for a replay, and has no TTL; any other lives as long as its result,
-- and long enough for a late enqueue of the same id to find it.
local function finish(record, state, now)
  local waited = redis.call('HGET', record, 'l')
  if state ~= 'D' then
    redis.call('HDEL', record, 'q', 'l', 'u')
    redis.call('EXPIRE', record, math.max(tonumber(redis.call('HGET', record, 'r')), MIN_RECORD_SECONDS))
  end
  redis.call('HSET', record, 's', state, 'z', now)
  if waited then
    redis.call('PUBLISH', 'poste:ended', record)
  end
end

local function bury(record, dead, key, reason, now)
  redis.call('HSET', record, 'd', reason)
  finish(record, 'D', now)
  redis.call('ZADD', dead, now, key)
end

-- A task that ran waits again; its place is at the front, for it is older than what waits there.
local function requeue(record, ready, counts, key)
  redis.call('HDEL', record, 't')
  redis.call('HSET', record, 's', 'Q')
  count_running(counts, -1)
  count_waiting(counts, record, 1)
  redis.call('RPUSH', ready, key)
end
