#!lua flags=allow-oom
-- Pauses a queue, or resumes it. A paused queue accepts calls, and no claim starts one.
-- KEYS: 1 counts    ARGV: 1 '1' to pause, '0' to resume

if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'paused', '1')
else
  redis.call('HDEL', KEYS[1], 'paused')
end
return 1
