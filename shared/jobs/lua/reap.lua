-- Move on what died: requeue or fail jobs whose lease ran out, and expire those past their deadline.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    max_attempts
-- ARGV[5]    lost_error    JSON of the error of a job whose workers all died
-- ARGV[6]    max_jobs      most to look at in one round, of either sort
-- ARGV[7]    lease         seconds that workers claim for; 'inf': any
-- Returns    {requeued, failed, expired}, each a list of ids
local max_attempts, lost_error, max_jobs, lease = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])

-- Leases from before Redis's clock was set back: who lives extends them, and those of the dead run out.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'running', NOW + 2 * lease, '+inf', 'LIMIT', 0, max_jobs)) do
  redis.call('ZADD', P .. 'running', NOW + lease, id)
end

local requeued, failed, expired = {}, {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'running', '-inf', NOW, 'LIMIT', 0, max_jobs)) do
  local key = P .. 'job:' .. id
  local status, owner, class, created_at = unpack(redis.call('HMGET', key, 'status', 'owner', 'line', 'created_at'))
  local deaths = status == 'running' and redis.call('HINCRBY', key, 'deaths', 1)
  -- A shard is never a suspect: only workers with an index run those. One attempt earlier its photos are tried singly.
  local most = max_attempts - (class == 'shard' and 1 or 0)
  if status == 'canceling' then
    finish(id, 'canceled', '', '')
  elseif status == 'running' and deaths >= most then
    finish(id, 'failed', 'error', lost_error)
    failed[#failed + 1] = id
  else
    redis.call('ZREM', P .. 'running', id)
    if status == 'running' then
      -- Its last attempt is made alone: if it is what kills workers, it must not take its neighbours along.
      if deaths + 1 >= max_attempts and class ~= 'reindex' and class ~= 'duplicates' then class = 'suspect' end
      redis.call('HSET', key, 'status', 'queued', 'line', class)
      enqueue(id, class, owner, created_at)
      requeued[#requeued + 1] = id
    end
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', NOW, 'LIMIT', 0, max_jobs)) do
  local status = redis.call('HGET', P .. 'job:' .. id, 'status')
  if status == 'queued' or status == 'running' or status == 'canceling' then
    expire(id)
    expired[#expired + 1] = id
  else
    redis.call('ZREM', P .. 'deadlines', id)
  end
end
for _, id in ipairs(redis.call('ZRANGE', P .. 'queued', 0, 99)) do  -- of records that outlived their time
  if redis.call('EXISTS', P .. 'job:' .. id) == 0 then redis.call('ZREM', P .. 'queued', id) end
end
return {requeued, failed, expired}
