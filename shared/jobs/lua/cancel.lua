-- End queued jobs at once, and mark running ones for their workers to give up.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4+]   ids
-- Returns    for each the status it has now: canceled or canceling
--            'ended' when it was too late
--            nothing when there is no such job
local ids, statuses = {unpack(ARGV, 4)}, {}

local function cancel(id)
  local status = redis.call('HGET', P .. 'job:' .. id, 'status')
  if not status then return false end
  if status == 'queued' then
    finish(id, 'canceled', '', '')
    return 'canceled'
  end
  if status ~= 'running' and status ~= 'canceling' then return 'ended' end
  redis.call('HSET', P .. 'job:' .. id, 'status', 'canceling')
  return 'canceling'
end

for i, id in ipairs(ids) do statuses[i] = cancel(id) end
return statuses
