#!lua flags=allow-oom
-- Moves what waits longest to a consumer's own list: what BLMOVE does for one, for many, and at `maxmemory` too
-- (RPOP frees first, which BLMOVE is refused).
-- KEYS: 1 ready, 2 taken:<incarnation>    ARGV: 1 how many at most, from 1 to 1000    Returns the keys

local keys = redis.call('RPOP', KEYS[1], ARGV[1])
if not keys then
  return {}
end
redis.call('LPUSH', KEYS[2], unpack(keys))
return keys
