#!lua flags=allow-oom
-- Moving tasks, the third step, in the queue that they left: they have arrived, and their requests go. What is left of each says
-- that it was moved, for longer than a late enqueue of the same id may come, and than its key may stand in a list of this queue; and
-- the queue remembers where its tasks went, for as long as it is there.
-- KEYS: 1 counts, 2… records    ARGV: for each record: its move
-- Returns nothing

local counts = KEYS[1]
for i = 2, #KEYS do
  local record, move = KEYS[i], ARGV[i - 1]
  local state, noted, method, waited = fields_of(record, 's', 'T', 'm', 'l')
  if state == 'M' and noted == move and method then
    local target = string.match(move, '%S+$')
    local targets = redis.call('HGET', counts, 'moved') or ''
    if not string.find(' ' .. targets .. ' ', ' ' .. target .. ' ', 1, true) then
      redis.call('HSET', counts, 'moved', targets == '' and target or targets .. ' ' .. target)
    end
    redis.call('DEL', record)
    redis.call('HSET', record, 's', 'M', 'T', move)
    redis.call('PEXPIRE', record, MOVED_SECONDS * 1000)
    if waited then
      publish(record)
    end
  end
end
return 1
