#!lua flags=allow-oom
-- An operator has ends told again that their clients' URLs could not be told: they are due at once, for another day.
-- KEYS: 1 callbacks, 2 undelivered, 3… records    ARGV: for each record: key
-- Returns how many there were

local callbacks, undelivered = KEYS[1], KEYS[2]
local now, count = now_ms(), 0
for i = 3, #KEYS do
  local key = ARGV[i - 2]
  if redis.call('ZREM', undelivered, key) == 1 and redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('HDEL', KEYS[i], 'N')
    redis.call('ZADD', callbacks, now, key)
    count = count + 1
  end
end
return count
