#!lua flags=allow-oom
-- Drops schemas that no call was accepted under for long; its caller has seen that no record names one of them.
-- KEYS: 1 schemas, 2 when each was asked for last    ARGV: 1 how long ago that must be, in ms, then their fingerprints
-- Returns how many were dropped: one that was asked for meanwhile stays

local schemas, used = unpack(KEYS)
local bound, dropped = now_ms() - tonumber(ARGV[1]), 0
for i = 2, #ARGV do
  local last = redis.call('ZSCORE', used, ARGV[i])
  if last and tonumber(last) <= bound then
    redis.call('HINCRBY', schemas, 'bytes', -redis.call('HSTRLEN', schemas, ARGV[i]))
    redis.call('HDEL', schemas, ARGV[i])
    redis.call('ZREM', used, ARGV[i])
    dropped = dropped + 1
  end
end
return dropped
