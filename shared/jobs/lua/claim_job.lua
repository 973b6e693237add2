-- Give a worker one certain job, for one attempt, if it waits.
--
-- A suspect is not given away like this: it is run alone, by whoever takes from the queue of suspects.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- ARGV[5]    worker
-- ARGV[6]    lease_end  seconds since the epoch
-- Returns    {id, record, pixels}, the record as names and values by turns
--            nothing when it is unknown, not queued, a suspect, or past its deadline, which ends it
local id, worker, lease_end = ARGV[4], ARGV[5], ARGV[6]

local status, class, owner = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'line', 'owner'))
if status ~= 'queued' or class == 'suspect' then return false end
return take(id, class, owner) and start(id, worker, lease_end)
