#!lua flags=allow-oom
-- Moving tasks to another queue, the first step, in the one that they leave: each stops here, and is answered with, whole. What
-- waits goes, and what is DEAD or FAILED and has its request; what runs stays. Until `move_done` the record stays as it is, but
-- for its state (M), and its key stands in `moving` with the move: whoever comes upon it goes on with that (`queue/moves.py`).
-- Idempotent by the record: what stopped here before is answered with again, and so it is asked what becomes of it.
-- KEYS: 1 delayed, 2 counts, 3 kept, 4 dead, 5 moving, 6 scheduled, 7… records
-- ARGV: 1 the target, '' if only what stopped before is asked for, 2 the move's name, 3 how many bytes of requests are answered
--   with, but for the last one's, then for each record: key
-- Returns {now in ms, for each: {'moving', move, its fields as HGETALL has them} | {'moved', move}: it is there
--   | {'runs'} | {'ended'}: otherwise | {'gone'}: no record, or its request is no longer kept | {'later'}: too many bytes}
-- A move is `<name> <state that it had here> <target>`.

local delayed, counts, kept, dead, moving, scheduled = unpack(KEYS, 1, 6)
local target, name, bytes_left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()

-- Takes a task off all that is counted here; returns whether there was anything to move.
local function stop(record, key, state)
  if state == 'Q' then
    redis.call('ZREM', delayed, key)
    redis.call('ZREM', scheduled, key)
    count_waiting(record, -1)
    return true
  end
  if not take_back(record, dead, key, state, now) then
    return false
  end
  -- What is still to be told of its end goes with it; what was told is not told again.
  if not drop_callback(record) then
    redis.call('HDEL', record, 'l')
  end
  return true
end

local function move_out(record, key)
  local state, move = fields_of(record, 's', 'T')
  if state == 'M' then
    if redis.call('HEXISTS', record, 'm') == 0 then
      return { 'moved', move }
    end
  elseif not state or target == '' then
    return { 'gone' }
  elseif state == 'R' then
    return { 'runs' }
  elseif state ~= 'Q' and state ~= 'D' and state ~= 'F' then
    return { 'ended' }
  end
  if bytes_left <= 0 then
    return { 'later' }
  end
  bytes_left = bytes_left - redis.call('HSTRLEN', record, 'q')
  if state ~= 'M' then
    if not stop(record, key, state) then
      return { 'gone' }
    end
    move = name .. ' ' .. state .. ' ' .. target
    redis.call('HSET', record, 's', 'M', 'T', move)
    redis.call('HSET', moving, key, move)
  end
  return { 'moving', move, redis.call('HGETALL', record) }
end

local results = { now }
for i = 7, #KEYS do
  results[#results + 1] = move_out(KEYS[i], ARGV[i - 3])
end
write_counts(counts, kept)
return results
