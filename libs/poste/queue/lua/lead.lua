#!lua flags=allow-oom
-- Elects the middleware replica that exports the system-wide metrics: the holder of the key, which is taken if it is free.
-- KEYS: 1 metrics_leader    ARGV: 1 name, 2 for how long in ms, 0 to step down    Returns 1 if it is this one now, else 0

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
