#!lua flags=allow-oom
-- Moves what waits longest to a consumer's own list: what BLMOVE does for one, for many, and at `maxmemory` too
-- (RPOP frees first, which BLMOVE is refused).
-- KEYS: 1 ready, 2 taken:<incarnation>    ARGV: 1 how many at most    Returns the keys

local keys = {}
for _ = 1, tonumber(ARGV[1]) do
  local key = redis.call('RPOP', KEYS[1])
  if not key then
    break
  end
  redis.call('LPUSH', KEYS[2], key)
  keys[#keys + 1] = key
end
return keys
