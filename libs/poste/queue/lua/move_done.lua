#!lua flags=allow-oom
-- Moving tasks, the third step, in the queue that they left: they have arrived, and their requests go. What is left of each says
-- that it was moved, for longer than a late enqueue of the same id may come, and than its key may stand in a list of this queue; and
-- the queue remembers where its tasks went, for as long as it is there. Of a call with an idempotency key its id and its request's
-- digest stay for as long as its result may be kept, of a dead letter much longer, for it may be replayed at any time: by these
-- the next call with the key is told.
-- KEYS: 1 counts, 2… records    ARGV: for each record: its move
-- Returns nothing

local counts, now = KEYS[1], now_ms()

-- Drops a record, but for where it went, when it left, and what the next call with its idempotency key is told by.
local function let_go(record, move)
  local digest, id, create, expiry, ttl = fields_of(record, 'I', 'g', 'c', 'x', 'r')
  local until_ms = now + MOVED_SECONDS * 1000
  redis.call('DEL', record)
  redis.call('HSET', record, 's', 'M', 'T', move, 'z', now)
  if digest and id and create then
    redis.call('HSET', record, 'I', digest, 'g', id, 'c', create)
    if string.match(move, '^%S+ (%S)') == 'D' then
      until_ms = now + MOVED_KEY_SECONDS * 1000
    end
    until_ms = math.max(until_ms, (number(expiry) or now) + (number(ttl) or 0) * 1000)
  end
  redis.call('PEXPIREAT', record, until_ms)
end

for i = 2, #KEYS do
  local record, move = KEYS[i], ARGV[i - 1]
  local state, noted, method, waited = fields_of(record, 's', 'T', 'm', 'l')
  if state == 'M' and noted == move and method then
    local target = string.match(move, '%S+$')
    local targets = redis.call('HGET', counts, 'moved') or ''
    if not string.find(' ' .. targets .. ' ', ' ' .. target .. ' ', 1, true) then
      redis.call('HSET', counts, 'moved', targets == '' and target or targets .. ' ' .. target)
    end
    let_go(record, move)
    if waited then
      publish(record)
    end
  end
end
return 1
