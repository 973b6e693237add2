-- Take due deliveries, the longest due first, counting a try of each.
--
-- KEYS[1]  sorted set of what is due
-- KEYS[2]  hash of tries
-- ARGV[1]  now        seconds since the epoch
-- ARGV[2]  limit      most to take
-- ARGV[3]  lease_end  when an unsettled one is due again, seconds since the epoch
-- ARGV[4]  latest     nothing is put off beyond it: what is due later is of before the clock was set back
-- Returns  job id and tries begun, by turns
local due, tries, now, limit, lease_end, latest = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

for _, id in ipairs(redis.call('ZRANGE', due, '(' .. latest, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZADD', due, now, id)
end

local taken = {}
for _, id in ipairs(redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
  redis.call('ZADD', due, lease_end, id)
  taken[#taken + 1] = id
  taken[#taken + 1] = redis.call('HINCRBY', tries, id, 1)
end
return taken
