#!lua flags=allow-oom
-- Begins a pass. If the last one is longer ago than a lease, Redis (or every middleware) was away, and leases could not
-- be renewed: all are extended, and nobody is to be reaped on their account. None is shortened: a service may have been
-- given a longer lease than the middleware was told of.
-- KEYS: 1 counts, 2 leases    ARGV: 1 lease in ms    Returns {now in ms, '1' if the leases were extended, else '0'}

local now, lease = now_ms(), tonumber(ARGV[1])
local last = tonumber(redis.call('HGET', KEYS[1], 'pass') or 0)
redis.call('HSET', KEYS[1], 'pass', now)
if now - last <= lease then
  return { now, '0' }
end
for _, incarnation in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  redis.call('ZADD', KEYS[2], 'GT', now + lease, incarnation)
end
return { now, '1' }
