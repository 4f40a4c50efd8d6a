#!lua flags=allow-oom
-- Finds out which lists hold something, for a process that looks after many queues: one step instead of one for each.
-- KEYS: the lists    Returns the places among KEYS, from 1, of those that are not empty

local found = {}
for place, list in ipairs(KEYS) do
  if redis.call('EXISTS', list) == 1 then
    found[#found + 1] = place
  end
end
return found
