#!lua flags=allow-oom
-- Moving tasks, the second step, in the queue that they go to: writes each as it was in the one that it left. What waited waits
-- at the end here, or until it may run; what was DEAD or FAILED is so here. It arrives once: the move is noted in `arrived`, until long after
-- `move_settle`, and a copy of this step that comes later than any note is kept is told by the time of its reading.
-- KEYS: 1 ready, 2 counts, 3 kept, 4 dead, 5 arrived, 6 recent, 7 scheduled, 8… records
-- ARGV: 1 the queue that they left, 2 when they were read there, in ms, 3 how long ago that may be, in ms, 4 how many of the newest
--   to remember, then for each record: key, move, how many fields' names and values there are, those
-- Returns for each: 'there', now or before | 'late': nothing was done | 'left': nothing was done, for it was moved away from here,
--   and its key may still stand in a list | 'taken': nothing was done, for another call with its idempotency key is known here

local ready, counts, kept, dead, arrived, recent, scheduled = unpack(KEYS, 1, 7)
local source, max_age, max_recent = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local late = math.abs(now - tonumber(ARGV[2])) > max_age

local function write(record, key, state, fields)
  redis.call('HSET', record, unpack(fields))
  redis.call('HDEL', record, 'T')
  redis.call('HSET', record, 's', state)
  local id, create, ttl, ended, waited, not_before, client = fields_of(record, 'g', 'c', 'r', 'z', 'l', 'B', 'C')
  if id and not string.find(id, '@', 1, true) then
    redis.call('HSET', record, 'g', id .. '@' .. source)
  end
  redis.call('LPUSH', recent, key)
  local owed = state ~= 'Q' and waited == CALLBACK
  if owed then
    redis.call('ZADD', (callbacks_of(record)), now, key)
  end
  if state == 'Q' then
    count_waiting(record, 1, nil, client)
    if (number(not_before) or 0) > now then
      redis.call('ZADD', scheduled, not_before, key)
    else
      redis.call('LPUSH', ready, key)
    end
  elseif state == 'D' then
    count_dead(record, 1)
    redis.call('ZADD', dead, number(ended) or 0, key)
  else
    local expiry = kept_until(number(ended) or 0, create, ttl)
    if owed then
      expiry = kept_for_callback(record, expiry, now)
    end
    count_kept(record, client, 1, expiry, ttl, redis.call('HSTRLEN', record, 'e') + redis.call('HSTRLEN', record, 'q'))
    redis.call('PEXPIREAT', record, expiry)
  end
end

-- Whether what stands here is the same call, or is left of it: calls with one idempotency key have one key.
local function is_same(record, fields)
  local carried = {}
  for i = 1, #fields, 2 do
    carried[fields[i]] = fields[i + 1]
  end
  local create, id = fields_of(record, 'c', 'g')
  return create == carried.c and string.match(id or '', '^[^@]*') == string.match(carried.g or '', '^[^@]*')
end

local function move_in(record, key, move, fields)
  local name, state = string.match(move, '^(%S+) (%S)')
  local mark = name .. ' ' .. key
  if redis.call('ZSCORE', arrived, mark) then
    return 'there'
  elseif late then
    return 'late'
  end
  local here, left, method = fields_of(record, 's', 'z', 'm')
  if here == 'M' and (method or now - (number(left) or now) < MOVED_SECONDS * 1000) then
    return 'left'
  elseif here and not is_same(record, fields) then
    return 'taken'
  elseif here == 'M' then
    redis.call('DEL', record)
  elseif here then
    return 'there'
  end
  write(record, key, state, fields)
  redis.call('ZADD', arrived, 'inf', mark)
  return 'there'
end

local results, at = {}, 5
for i = 8, #KEYS do
  local key, move, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  results[#results + 1] = move_in(KEYS[i], key, move, { unpack(ARGV, at + 3, at + 2 + count) })
  at = at + 3 + count
end
redis.call('LTRIM', recent, 0, max_recent - 1)
write_counts(counts, kept)
return results
