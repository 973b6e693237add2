-- Take a slot of the schedule, once.
--
-- Time does not run backwards; but a last slot further ahead than the next one was taken by a clock that was wrong.
--
-- KEYS[1]  the schedule's hash
-- ARGV[1]  cron       the expression
-- ARGV[2]  slot       its time, seconds since the epoch
-- ARGV[3]  job        id of the reindex it led to
-- ARGV[4]  next_slot  the one after the current time
-- Returns  1 when it was taken, 0 when it or a later one had been
local schedule, cron, slot, job, next_slot = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local last_cron, last = unpack(redis.call('HMGET', schedule, 'cron', 'slot'))
if last_cron == cron and tonumber(last) >= tonumber(slot) and tonumber(last) <= tonumber(next_slot) then return 0 end
redis.call('HSET', schedule, 'cron', cron, 'slot', slot, 'job', job)
return 1
