#!lua flags=allow-oom
-- Begins a pass: moves the leases' clock on (`lease_clock`).
-- KEYS: 1 counts    ARGV: 1 by how much it moves at most until the next pass, in ms    Returns {that clock, now}, in ms

local now = now_ms()
local clock = lease_clock(KEYS[1], now)
redis.call('HSET', KEYS[1], 'pass', now, 'clock', clock, 'step', ARGV[1])
return { clock, now }
