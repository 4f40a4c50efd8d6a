#!lua flags=allow-oom
-- Keeps a method's schema for the calls that are accepted under it, or notes that there are still such calls.
-- KEYS: 1 schemas, 2 when each was asked for last    ARGV: 1 fingerprint, 2 the schema, '' if it is only asked for,
--       3 how many bytes all of them may have
-- Returns 'kept' | 'unknown': it was asked for, and is not kept | 'full'

local schemas, used = unpack(KEYS)
local fingerprint, schema, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', schemas, fingerprint) == 0 then
  if schema == '' then
    return 'unknown'
  end
  if (number(redis.call('HGET', schemas, 'bytes')) or 0) + #schema > most then
    return 'full'
  end
  redis.call('HSET', schemas, fingerprint, schema)
  redis.call('HINCRBY', schemas, 'bytes', #schema)
end
redis.call('ZADD', used, now_ms(), fingerprint)
return 'kept'
