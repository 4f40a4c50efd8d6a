#!lua flags=allow-oom
-- Checks whether a queue is still at a standstill (paused or over its budget), for a consumer that found it so.
-- KEYS: 1 counts    Returns 1 if it does, else 0

return stands_still(KEYS[1]) and 1 or 0
