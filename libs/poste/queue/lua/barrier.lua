#!lua flags=allow-oom
-- Writes something, for WAITAOF: it proves only its own connection's last write to be on disk, and with it all that was
-- written before, by whomever. Without a write of its own it is content at once.
-- KEYS: 1 barrier    Returns now in ms

redis.call('INCR', KEYS[1])
return now_ms()
