-- Renews the lease of one member and returns its share of the pool.
-- KEYS[1]: a hash with the field "lease demand ends number" for each member, and @run, @grace, @ttl.
-- ARGV: the member, the number of its request, the tokens it keeps, the tokens it could use, the pool, the lease time in ms.
local key, id = KEYS[1], ARGV[1]
local number, keep, demand, pool, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Members count the lease time from before they send a request. The extra eighth allows for clocks that run at different speeds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = now + ttl + math.floor(ttl / 8)

-- A restart, a failover or a flush may have lost leases that are still in use, and old ones may have reappeared. Until all of them
-- have ended, no share grows.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if redis.call('HGET', key, '@run') ~= run then
  redis.call('DEL', key)
  redis.call('HSET', key, '@run', run, '@grace', ends, '@ttl', ttl)
end
if tonumber(redis.call('HGET', key, '@ttl')) ~= ttl then
  return redis.error_reply('FLEET other members have another lease time')
end

local mine = { id = id, demand = demand }
local members, others = { mine }, 0
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local lease, wants, till, last = string.match(fields[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if fields[i] == id and lease then
    -- A request may arrive after a later one, on a connection that the member has given up.
    if number <= tonumber(last) then
      return redis.error_reply('FLEET a later request has been answered')
    end
  elseif lease and tonumber(till) <= now then
    redis.call('HDEL', key, fields[i])
  elseif lease then
    others = others + lease
    table.insert(members, { id = fields[i], demand = tonumber(wants) })
  end
end

-- The smallest demands are met first, each up to an even part of what is left. Tokens that no member demands are spread evenly.
table.sort(members, function(a, b)
  return a.demand < b.demand or a.demand == b.demand and a.id < b.id
end)
local rest = pool
for i, member in ipairs(members) do
  member.share = math.min(member.demand, math.floor(rest / (#members - i + 1)))
  rest = rest - member.share
end
for i, member in ipairs(members) do
  local spare = math.floor(rest / (#members - i + 1))
  member.share = member.share + spare
  rest = rest - spare
end

-- The share grows only into tokens that no other lease covers. The lease covers whatever the member keeps, even above its share.
local share = math.min(mine.share, math.max(0, pool - others))
if now < tonumber(redis.call('HGET', key, '@grace')) then
  share = math.min(share, keep)
end
redis.call('HSET', key, id, string.format('%d %d %d %d', math.max(share, keep), demand, ends, number))
return share
