-- Hand back a job that its worker will not finish: queued again, and no attempt is held against it.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- ARGV[5]    held_attempt
-- Returns    nothing
local id, held_attempt = ARGV[4], ARGV[5]

local key = P .. 'job:' .. id
local status, attempt, owner, class, created_at =
  unpack(redis.call('HMGET', key, 'status', 'attempt', 'owner', 'line', 'created_at'))
if attempt ~= held_attempt then return end
if status == 'canceling' then
  finish(id, 'canceled', '', '')
elseif status == 'running' then
  redis.call('ZREM', P .. 'running', id)
  redis.call('HSET', key, 'status', 'queued')
  enqueue(id, class, owner, created_at)
end
