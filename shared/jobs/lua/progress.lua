-- Write how far an attempt has come. Attempts that got further than any before are not what kills workers.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- ARGV[5]    held_attempt
-- ARGV[6]    progress      its JSON
-- ARGV[7]    done          how much is done for good
-- Returns    the job's status, or nothing when the attempt no longer holds it
local id, held_attempt, progress, done = ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local key = P .. 'job:' .. id
local status, attempt, furthest = unpack(redis.call('HMGET', key, 'status', 'attempt', 'furthest'))
if attempt ~= held_attempt or (status ~= 'running' and status ~= 'canceling') then return false end
redis.call('HSET', key, 'progress', progress)
if tonumber(done) > tonumber(furthest or 0) then
  redis.call('HSET', key, 'furthest', done)
  redis.call('HDEL', key, 'deaths')
end
return status
