#!lua flags=allow-oom
-- Keeps which replicas of services live, and with that which versions stand: a version is retired when a replica lives and
-- none that lives has it. While none lives the last ones stand, for a service that is away must still be callable.
-- Couriers are among the replicas, under a name that no service has, and have no place.
-- Which services a change is of is remembered, so that who reads the catalogue again reads those only; and how many were,
-- for a middleware from before does not say it.
-- KEYS: 1 replicas, 2 places, 3 versions, 4 retired, 5 catalogue version, 6 pass, 7 shipped, 8 changes, 9 noted
-- ARGV: 1 how long a replica is listed after its last registration, in ms, 2 the longest pause between two passes, in ms,
--       3 how long a retired version is kept, in ms, 4 how many of one service are, 5 how many changes are remembered,
--       then one of
--   'ship', service, what the deployment ships of it
--   'register', service, replica, address, version, what it registers
--   'withdraw', service, replica
--   'forget', service: all that is known of it goes
--   'courier', name: it is there; 'stop courier', name: it is no longer
--   'pass': forgets replicas that fell silent, and versions that were retired long ago. If the last pass is too long ago,
--           no replica could register: then all are taken to have registered now.
-- Returns 1 if anything changed, else 0

local replicas, places, versions, retired, counter, pass, shipped, changes, noted = unpack(KEYS)
local lease, pause, keep, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local remembered, step, service = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local now, changed, touched = now_ms(), false, {}
local COURIERS = '* '

-- Notes that so many things of a service changed; couriers are no service's.
local function mark(count, of_service)
  if count ~= 0 then
    changed = true
    if of_service and of_service ~= '*' then
      touched[of_service] = true
    end
  end
end

local function service_of(member)
  return string.match(member, '^%S+')
end

local function of(service, member)
  return string.sub(member, 1, #service + 1) == service .. ' '
end

local function forget(who)
  redis.call('HDEL', places, who)
  mark(redis.call('ZREM', replicas, who), service_of(who))
end

-- Retires what no living replica of a service has, and forgets its replicas that stopped: others live.
local function settle(service)
  local live, stopped = {}, {}
  local all = redis.call('HGETALL', places)
  for i = 1, #all, 2 do
    if of(service, all[i]) then
      local version, rest = string.match(all[i + 1], '^(%S+) %S+(.*)$')
      if rest == '' then
        live[version] = true
      else
        stopped[#stopped + 1] = all[i]
      end
    end
  end
  if not next(live) then
    return
  end
  for _, who in ipairs(stopped) do
    forget(who)
  end
  local old = {}
  for _, member in ipairs(redis.call('HKEYS', versions)) do
    if of(service, member) then
      if live[string.sub(member, #service + 2)] then
        mark(redis.call('ZREM', retired, member), service)
      else
        mark(redis.call('ZADD', retired, 'NX', now, member), service)
        old[#old + 1] = { tonumber(redis.call('ZSCORE', retired, member)), member }
      end
    end
  end
  table.sort(old, function(one, other) return one[1] > other[1] end)
  for i = most + 1, #old do
    redis.call('HDEL', versions, old[i][2])
    redis.call('ZREM', retired, old[i][2])
  end
end

if step == 'ship' then
  redis.call('HSET', shipped, service, ARGV[8])
  mark(1, service)
elseif step == 'register' then
  local who, address, version = service .. ' ' .. ARGV[8], ARGV[9], ARGV[10]
  local place = version .. ' ' .. address
  local fresh = redis.call('HGET', places, who) ~= place
  redis.call('ZADD', replicas, now, who)
  if redis.call('HSETNX', versions, service .. ' ' .. version, now .. ' ' .. ARGV[11]) == 1 or fresh then
    redis.call('HSET', places, who, place)
    mark(1, service)
    settle(service)
  end
elseif step == 'withdraw' then
  local who = service .. ' ' .. ARGV[8]
  local place = redis.call('HGET', places, who)
  if place and not string.find(place, ' stopped$') then
    redis.call('HSET', places, who, place .. ' stopped')
    mark(1, service)
    settle(service)
  end
elseif step == 'courier' then
  mark(redis.call('ZADD', replicas, now, COURIERS .. service))
elseif step == 'stop courier' then
  mark(redis.call('ZREM', replicas, COURIERS .. service))
elseif step == 'forget' then
  mark(redis.call('HDEL', shipped, service), service)
  for _, who in ipairs(redis.call('HKEYS', places)) do
    if of(service, who) then
      forget(who)
    end
  end
  for _, member in ipairs(redis.call('HKEYS', versions)) do
    if of(service, member) then
      redis.call('ZREM', retired, member)
      mark(redis.call('HDEL', versions, member), service)
    end
  end
else
  local last = tonumber(redis.call('GET', pass) or 0)
  redis.call('SET', pass, now)
  if now - last > pause then
    for _, who in ipairs(redis.call('ZRANGE', replicas, 0, -1)) do
      redis.call('ZADD', replicas, now, who)
    end
  else
    local bereft = {}
    for _, who in ipairs(redis.call('ZRANGEBYSCORE', replicas, '-inf', now - lease)) do
      bereft[service_of(who)] = true
      forget(who)
    end
    for one in pairs(bereft) do
      settle(one)
    end
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', retired, '-inf', now - keep)) do
    redis.call('HDEL', versions, member)
    mark(redis.call('ZREM', retired, member), service_of(member))
  end
end
if changed then
  local version = redis.call('INCR', counter)
  for one in pairs(touched) do
    redis.call('ZADD', changes, version, one)
  end
  redis.call('ZREMRANGEBYSCORE', changes, '-inf', version - remembered)
  redis.call('INCR', noted)
end
return changed and 1 or 0
