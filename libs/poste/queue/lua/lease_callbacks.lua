#!lua flags=allow-oom
-- A gateway takes what is due to be told to clients' URLs: no other is given it until the lease is over. What could not be told
-- is forgotten when its record's time is over.
-- KEYS: 1 callbacks, 2 undelivered    ARGV: 1 how many at most, 2 how long the lease is, in ms    Returns their keys

local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - CALLBACK_KEPT_SECONDS * 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, key in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], key)
end
return due
