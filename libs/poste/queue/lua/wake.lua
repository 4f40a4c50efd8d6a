#!lua flags=allow-oom
-- Puts retries that are due back to the front of the queue.
-- KEYS: 1 delayed, 2 ready    ARGV: 1 how many at most    Returns how many

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms(), 'LIMIT', 0, tonumber(ARGV[1]))
for _, key in ipairs(due) do
  redis.call('ZREM', KEYS[1], key)
  redis.call('RPUSH', KEYS[2], key)
end
return #due
