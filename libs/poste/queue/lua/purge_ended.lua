#!lua flags=allow-oom
-- An operator has what ended dropped: the records themselves go. That they were there is kept as one time for the whole queue,
-- up to which a task without a record need not be lost. What has only just ended stays: a late enqueue of the same id is to find
-- it, and so is a client that waits for it; and so does what is yet to be told to its client's URL. DEAD tasks stay, but for
-- those that were purged: `purge.lua` deals with them.
-- KEYS: 1 counts, 2 kept, 3… records    ARGV: 1 up to when they must have ended, in ms
-- Returns how many were dropped

local counts, kept = KEYS[1], KEYS[2]
local now, dropped = now_ms(), 0
local bound = math.min(tonumber(ARGV[1]), now - MIN_RECORD_SECONDS * 1000)
for i = 3, #KEYS do
  local record = KEYS[i]
  local state, ended, create, ttl, purged, client = fields_of(record, 's', 'z', 'c', 'r', 'j', 'C')
  ended, create, purged = number(ended), number(create), number(purged)
  local callbacks, undelivered, key = callbacks_of(record)
  local has_ended = ended and create and is_final(state) and state ~= 'M' and (purged or state ~= 'D')
    and not redis.call('ZSCORE', callbacks, key)
  if has_ended and math.max(ended, create) <= bound then
    local size = redis.call('HSTRLEN', record, 'o') + redis.call('HSTRLEN', record, 'e') + redis.call('HSTRLEN', record, 'q')
    count_kept(record, client, -1, purged or kept_until(ended, create, ttl), ttl, size)
    redis.call('UNLINK', record)
    redis.call('ZREM', undelivered, key)
    dropped = dropped + 1
  end
end
if dropped > 0 then
  redis.call('HSET', counts, 'purged', math.max(bound, number(redis.call('HGET', counts, 'purged')) or 0))
end
write_counts(counts, kept)
return dropped
