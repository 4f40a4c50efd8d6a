#!lua flags=allow-oom
-- Begins a pass: moves the leases' clock on (`lease_clock`), drops the figures of what Redis has dropped by now, and says how
-- many bytes what ended may take: no task is started while it takes as many (`stands_still`).
-- KEYS: 1 counts, 2 kept, 3 moving, 4 arrived
-- ARGV: 1 by how much the clock moves at most until the next pass, in ms, 2 how many bytes what ended may take in any case, '' if
--   that is not known: then it stays as it is, 3 how many its Redis may hold in all, 0 if that is of no account: what ended may
--   take as many as it leaves of those
-- Returns {that clock in ms, now in ms, 1 if what ended takes as much as it may, else 0, how many tasks are being moved away}

-- A stretch that is over is counted a little longer, in s: a server may drop a record a little late.
local LATE_SECONDS = 2

local counts, kept, moving, arrived = unpack(KEYS)
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
local budget = number(redis.call('HGET', counts, 'budget'))
if ARGV[2] ~= '' then
  budget = tonumber(ARGV[2])
  if ARGV[3] ~= '0' then
    -- What it leaves once it takes as much is as much: where this queue alone grows, the next pass says the same.
    local used = string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')
    budget = math.max(budget, math.floor((ARGV[3] - used + ended) / 2))
  end
  redis.call('HSET', counts, 'budget', budget)
end
redis.call('ZREMRANGEBYSCORE', arrived, '-inf', now)
return { clock, now, budget and ended >= budget and 1 or 0, redis.call('HLEN', moving) }
