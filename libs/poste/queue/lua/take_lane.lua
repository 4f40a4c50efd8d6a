#!lua flags=allow-oom
-- Moves what waits longest in a method's lane to a consumer's own list, to be claimed: its method has its turn. Not more than
-- the method's pace allows, if it has one: of all consumers together so many start a second, and as many at once at most (a
-- token bucket, kept as the time at which it is full again: GCRA, ITU-T I.371).
-- KEYS: 1 lane:<method>, 2 taken:<incarnation>, 3 lanes, 4 counts
-- ARGV: 1 method, 2 how many at most, from 1 to 1000, 3 how many start a second, or ''
-- Returns {keys, in how many ms the next may start if it is the pace that allows no more now, else 0}

local lane, taken, lanes, counts = unpack(KEYS)
local method, count, pace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local field, now, each, full, burst = '@' .. method, now_ms(), nil, nil, nil
if pace then
  each = 1000 / pace
  burst = math.max(1, math.floor(pace)) * each
  full = math.min(math.max(tonumber(redis.call('HGET', counts, field) or '') or 0, now), now + burst)
  count = math.min(count, math.floor((now + burst - full) / each + 1e-6))
end
local keys = count > 0 and take(lane, taken, count) or {}
local wait = 0
if pace then
  full = full + #keys * each
  if #keys > 0 then
    redis.call('HSET', counts, field, string.format('%.3f', full))
  end
  wait = math.max(0, math.ceil(full + each - burst - now))
end
if redis.call('EXISTS', lane) == 0 then
  redis.call('SREM', lanes, method)
end
return { keys, wait }
