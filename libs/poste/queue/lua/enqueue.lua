-- Accepts tasks: writes each record and puts its key at the end of the queue. Idempotent by the key. Alone among the
-- scripts it may be refused for want of memory.
-- KEYS: 1 ready, 2 counts, 3… records
-- ARGV: 1 max waiting, 2 max bytes, 3 max age of an id in ms,
--       then for each record: key, method, request, create time in ms, task TTL in ms, result TTL in s, '1' if it must not run twice
-- Returns for each: 'accepted' | 'full' | 'clock'

local ready, counts = KEYS[1], KEYS[2]
local now = now_ms()
local waiting = tonumber(redis.call('HGET', counts, 'waiting') or 0)
local bytes = tonumber(redis.call('HGET', counts, 'bytes') or 0)
local max_waiting, max_bytes, max_age = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local results, fresh, seen = {}, {}, {}
for i = 3, #KEYS do
  local at = 4 + (i - 3) * 7
  local request, create = ARGV[at + 2], tonumber(ARGV[at + 3])
  local result
  if seen[KEYS[i]] or redis.call('EXISTS', KEYS[i]) == 1 then
    result = 'accepted'
  elseif math.abs(now - create) > max_age then
    result = 'clock'
  elseif waiting >= max_waiting or bytes + #request > max_bytes then
    result = 'full'
  else
    result = 'accepted'
    seen[KEYS[i]] = true
    waiting, bytes = waiting + 1, bytes + #request
    fresh[#fresh + 1] = i
  end
  results[#results + 1] = result
end

for _, i in ipairs(fresh) do
  local at = 4 + (i - 3) * 7
  local create = tonumber(ARGV[at + 3])
  redis.call('HSET', KEYS[i], 'm', ARGV[at + 1], 'q', ARGV[at + 2], 's', 'Q', 'c', create,
    'x', create + tonumber(ARGV[at + 4]), 'r', ARGV[at + 5])
  if ARGV[at + 6] == '1' then
    redis.call('HSET', KEYS[i], 'n', '1')
  end
  redis.call('LPUSH', ready, ARGV[at])
end
if #fresh > 0 then
  redis.call('HSET', counts, 'waiting', waiting, 'bytes', bytes)
end
return results
