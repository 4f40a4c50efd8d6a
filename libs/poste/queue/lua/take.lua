#!lua flags=allow-oom
-- Moves what waits longest to a consumer's own list: what BLMOVE does for one, for many, and at `maxmemory` too.
-- KEYS: 1 ready, 2 taken:<incarnation>    ARGV: 1 how many at most, from 1 to 1000    Returns the keys

return take(KEYS[1], KEYS[2], ARGV[1])
