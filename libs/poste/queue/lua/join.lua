#!lua flags=allow-oom
-- A new consumer process takes its first lease, under an incarnation that was never used before.
-- KEYS: 1 leases, 2 counts    ARGV: 1 incarnation, 2 lease in ms

redis.call('ZADD', KEYS[1], lease_clock(KEYS[2], now_ms()) + tonumber(ARGV[2]), ARGV[1])
return 1
