-- Put a delivery off, unless it was settled.
--
-- KEYS[1]  sorted set of what is due
-- KEYS[2]  hash of tries
-- ARGV[1]  id      the job's
-- ARGV[2]  due_at  seconds since the epoch
-- Returns  nothing
local due, id, due_at = KEYS[1], ARGV[1], ARGV[2]

-- XX: what another worker has settled meanwhile stays settled.
redis.call('ZADD', due, 'XX', due_at, id)
