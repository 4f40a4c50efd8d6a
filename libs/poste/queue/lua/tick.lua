#!lua flags=allow-oom
-- Begins a pass: moves the leases' clock on (`lease_clock`), and drops the figures of what Redis has dropped by now.
-- KEYS: 1 counts, 2 kept    ARGV: 1 by how much the clock moves at most until the next pass, in ms
-- Returns {that clock, now}, in ms

-- A stretch that is over is counted a little longer, in s: a server may drop a record a little late.
local LATE_SECONDS = 2

local counts, kept = KEYS[1], KEYS[2]
local now = now_ms()
local clock = lease_clock(counts, now)
local ended = tonumber(redis.call('HGET', counts, 'dead_bytes') or 0)
local figures = redis.call('HGETALL', kept)
for i = 1, #figures, 2 do
  local stretch, bytes = string.match(figures[i], '^(%d+)(b?)$')
  if stretch * 1000 + LATE_SECONDS * 1000 < now then
    redis.call('HDEL', kept, figures[i])
  elseif bytes ~= '' then
    ended = ended + figures[i + 1]
  end
end
redis.call('HSET', counts, 'pass', now, 'clock', clock, 'step', ARGV[1], 'ended_bytes', ended)
return { clock, now }
