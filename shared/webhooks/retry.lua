-- Put a delivery off, unless it was settled.
--
-- KEYS[1]  sorted set of what is due
-- KEYS[2]  hash of tries
-- ARGV[1]  id       the job's
-- ARGV[2]  due_at   seconds since the epoch
-- ARGV[3]  counted  '0' to take the last try back, else '1'
-- Returns  nothing
local due, tries, id, due_at, counted = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]

-- XX: what another worker has settled meanwhile stays settled.
redis.call('ZADD', due, 'XX', due_at, id)
if counted == '0' and redis.call('HEXISTS', tries, id) == 1 then redis.call('HINCRBY', tries, id, -1) end
