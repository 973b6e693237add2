-- End jobs whose deadline is over, for readers who come before the reaper, and for those who find no room.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4+]   ids
-- Returns    nothing
local ids = {unpack(ARGV, 4)}

for _, id in ipairs(ids) do
  local status, deadline_at = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'deadline_at'))
  if (status == 'queued' or status == 'running' or status == 'canceling') and tonumber(deadline_at) <= NOW then
    expire(id)
  elseif not status then  -- a record that outlived its time
    redis.call('ZREM', P .. 'deadlines', id)
    redis.call('ZREM', P .. 'queued', id)
  end
end
