-- Store an event of feedback once, with what its search showed.
--
-- KEYS[1]  prefix of all keys
-- ARGV[1]  job_id
-- ARGV[2]  shown       what the search showed, JSON
-- ARGV[3]  field       identifies the event among those of the job
-- ARGV[4]  event       JSON
-- ARGV[5]  replaces    '1': it takes the place of an earlier one; else the earlier one stays
-- ARGV[6]  limit       searches with feedback, at most
-- Returns  1 when it is stored, now or before; 0 when there is no room for another search
local P, job_id, shown, field, event, replaces, limit = KEYS[1], unpack(ARGV)
local key, order = P .. 'feedback:' .. job_id, P .. 'feedback'

if redis.call('EXISTS', key) == 0 and redis.call('ZCARD', order) >= tonumber(limit) then return 0 end
redis.call('HSETNX', key, 'shown', shown)
redis.call(replaces == '1' and 'HSET' or 'HSETNX', key, field, event)
local now = redis.call('TIME')
redis.call('ZADD', order, string.format('%.0f', now[1] * 1000000 + now[2]), job_id)
return 1
