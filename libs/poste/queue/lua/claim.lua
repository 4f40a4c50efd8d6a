#!lua flags=allow-oom
-- Makes taken tasks a consumer's own. Possession is ownership: only a key that stands in taken:<incarnation> of an
-- incarnation with a lease is claimed, and then whatever is not final. Idempotent by the token <incarnation>:<seq>,
-- which the claimer names; a lower seq than the record's is refused.
-- KEYS: 1 leases, 2 taken:<incarnation>, 3 counts, 4 dead, 5 ready, 6… records
-- ARGV: 1 incarnation, 2 '1' if nothing else runs in the process, then for each record: key, seq
-- Returns {'fenced'} if there is no lease, else for each:
--   {'run', method, request, attempt, create time in ms} | {'drop'} | {'suspect'}: claim it alone
--   | {'paused'}: it was put back to its place in the queue
-- A suspect was there when two processes died: it may be what kills them. (One death says little: it is a deploy far more
-- often than a poison, and running everything that it hit one by one would hold the queue up.)

local SUSPECT_AFTER = 2

local leases, taken, counts, dead, ready = unpack(KEYS, 1, 5)
local me, alone = ARGV[1], ARGV[2] == '1'
if not redis.call('ZSCORE', leases, me) then
  return { 'fenced' }
end
local now = now_ms()
local paused, put_back = redis.call('HEXISTS', counts, 'paused') == 1, {}
-- One look at the whole list: it is short, and a look for each key costs more.
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

local function claim(record, key, seq)
  if not stands[key] then
    return { 'drop' }
  end
  local state, token, expire, once, company, stop, attempts, method, create, request =
    unpack(redis.call('HMGET', record, 's', 't', 'x', 'n', 'u', 'w', 'a', 'm', 'c', 'q'))
  if not state or is_final(state) then
    return drop(key)
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
      if not of_mine and once then
        count_running(-1)
        bury(record, dead, key, 'outcome-unknown', now)
        return drop(key)
      end
      redis.call('HSET', record, 't', mine, 'b', now)
    end
    return { 'run', method, request, tonumber(attempts), tonumber(create) }
  end
  if tonumber(expire) <= now then
    count_waiting(record, -1, request and #request)
    finish(record, 'E', now)
    return drop(key)
  end
  if paused then
    take_off(key)
    put_back[#put_back + 1] = key
    return { 'paused' }
  end
  if tonumber(company or 0) >= SUSPECT_AFTER and not alone then
    return { 'suspect' }
  end
  attempts = tonumber(attempts or 0) + 1
  count_waiting(record, -1, request and #request)
  count_running(1)
  redis.call('HSET', record, 's', 'R', 't', mine, 'a', attempts, 'b', now)
  return { 'run', method, request, attempts, tonumber(create) }
end

local results = {}
for i = 6, #KEYS do
  local at = 3 + (i - 6) * 2
  results[#results + 1] = claim(KEYS[i], ARGV[at], ARGV[at + 1])
end
-- The claimer names the oldest first, and that is to be taken first again.
for i = #put_back, 1, -1 do
  redis.call('RPUSH', ready, put_back[i])
end
write_counts(counts)
return results
