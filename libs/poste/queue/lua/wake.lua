#!lua flags=allow-oom
-- Puts what is due into the queue: retries to its front, for they are older than what waits there, and calls that were not to run
-- before a time that has come (`enqueue`) to its end, for these have waited for no turn yet.
-- KEYS: 1 delayed, 2 ready, 3 scheduled    ARGV: 1 how many of each at most    Returns how many

local ready, now, woken = KEYS[2], now_ms(), 0

local function wake(waiting, push)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))) do
    redis.call('ZREM', waiting, key)
    redis.call(push, ready, key)
    woken = woken + 1
  end
end

wake(KEYS[1], 'RPUSH')
wake(KEYS[3], 'LPUSH')
return woken
