-- Give the next sequence number: higher than that of every change accepted before.
--
-- It is microseconds of Redis's clock, so that a Redis that lost everything does not begin below what snapshots
-- remember.
--
-- KEYS[1]  prefix of all keys
-- ARGV     none
-- Returns  the number, as text
local P = KEYS[1]

local now = redis.call('TIME')
local key = P .. 'changes:sequence'
local next_one = math.max(tonumber(redis.call('GET', key) or 0) + 1, now[1] * 1000000 + now[2])
local written = string.format('%.0f', next_one)
redis.call('SET', key, written)
return written
