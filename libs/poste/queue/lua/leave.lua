#!lua flags=allow-oom
-- A consumer that gave everything back ends its lease. One that still holds something leaves it to the reaper.
-- KEYS: 1 leases, 2 reaped, 3 taken:<incarnation>    ARGV: 1 incarnation    Returns 1 if the lease ended

if redis.call('LLEN', KEYS[3]) > 0 then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return 1
