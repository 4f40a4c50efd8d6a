#!lua flags=allow-oom
-- A consumer that met a queue standing still looks whether it does yet.
-- KEYS: 1 counts    Returns 1 if it does, else 0

return stands_still(KEYS[1]) and 1 or 0
