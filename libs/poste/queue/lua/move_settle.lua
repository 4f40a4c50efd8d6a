#!lua flags=allow-oom
-- Moving tasks, the last step, in the queue that they went to: their records in the other one are gone. What is under way of this
-- move comes within `move_in`'s time, so for longer than that it stays known that they have arrived.
-- KEYS: 1 arrived    ARGV: for each task: the mark that `move_in` made    Returns nothing

local until_ms = now_ms() + MIN_RECORD_SECONDS * 1000
for _, mark in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], 'XX', until_ms, mark)
end
return 1
