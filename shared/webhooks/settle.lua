-- Forget a delivery that arrived or will not be tried again.
--
-- KEYS[1]  sorted set of what is due
-- KEYS[2]  hash of tries
-- ARGV[1]  id  the job's
-- Returns  nothing
local due, tries, id = KEYS[1], KEYS[2], ARGV[1]

redis.call('ZREM', due, id)
redis.call('HDEL', tries, id)
