#!lua flags=allow-oom
-- Renews a lease. Never re-adds one: a consumer that was reaped must drop everything and join anew.
-- KEYS: 1 leases, 2 counts    ARGV: 1 incarnation, 2 lease in ms    Returns 1, or 0 if the lease is gone

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], lease_clock(KEYS[2], now_ms()) + tonumber(ARGV[2]), ARGV[1])
return 1
