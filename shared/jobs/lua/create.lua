-- Write a new job and put it in its queue, unless it is known already or too much waits. Includes call_idle.lua.
-- Run again with the same id, because the answer was lost, it does nothing.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- ARGV[5]    max_queued            most jobs of everybody that may wait
-- ARGV[6]    max_queued_per_owner  most jobs of one owner that may wait
-- ARGV[7]    job_ttl               seconds for which an unfinished job is kept
-- ARGV[8]    pixels                the decoded photos, or '' when there are none
-- ARGV[9]    idempotency_key       the key that remembers the first use of the client's, or '' when it sent none
-- ARGV[10]   digest                of the request, to compare with that of the first use
-- ARGV[11]   owner                 those that begin with an underscore are ours, and their jobs are in no list
-- ARGV[12]   class
-- ARGV[13]   deadline_at           seconds since the epoch
-- ARGV[14]   wants_call            '1' to call a thread that waits for jobs, unless messages enough lie unread; else '0'
-- ARGV[15+]  fields                of the record: name and value by turns
-- Returns    what became of it, and more about that:
--   {'created', 'called'}   written, and whoever takes such jobs knows
--   {'created', ''}         written, and a worker is to be woken
--   {'known', id}           the idempotency key's job
--   {'conflict', id}        the idempotency key was used for another request, which led to that job
--   {'busy', id}            that reindex is unfinished, and there is one at a time
--   {'full', n_queued}      so many jobs wait; never of a reindex
--   {'share', n_queued}     so many jobs of this owner wait; never of a reindex
local id, max_queued, max_queued_per_owner, job_ttl = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local pixels, idempotency_key, digest = ARGV[8], ARGV[9], ARGV[10]
local owner, class, deadline_at, wants_call = ARGV[11], ARGV[12], ARGV[13], ARGV[14] == '1'
local fields = {unpack(ARGV, 15)}

if redis.call('EXISTS', P .. 'job:' .. id) == 1 then return {'created', ''} end
if idempotency_key ~= '' then
  local first_digest, first = unpack(redis.call('HMGET', idempotency_key, 'digest', 'id'))
  if first then
    if first_digest ~= digest then return {'conflict', first} end
    return {'known', first}
  end
end
if class == 'reindex' then
  local other = redis.call('GET', P .. 'reindex')
  local status = other and redis.call('HGET', P .. 'job:' .. other, 'status')
  if status == 'queued' or status == 'running' or status == 'canceling' then return {'busy', other} end
  redis.call('SET', P .. 'reindex', id, 'EX', job_ttl + RESULT_TTL)
end
if class ~= 'reindex' then  -- one at a time, and wanted most where changes are refused until there was one
  local depth = redis.call('ZCARD', P .. 'queued')
  if depth >= max_queued then return {'full', tostring(depth)} end
  local own = redis.call('ZCARD', line_of('interactive', owner)) + redis.call('ZCARD', line_of('bulk', owner))
  if not has_messages(class) then own = own + redis.call('ZCARD', line_of(class, owner)) end
  if own >= max_queued_per_owner then return {'share', tostring(own)} end
end
local key, ttl = P .. 'job:' .. id, job_ttl + RESULT_TTL
redis.call('HSET', key, unpack(fields))
redis.call('EXPIRE', key, ttl)
if pixels ~= '' then redis.call('SET', P .. 'pixels:' .. id, pixels, 'EX', job_ttl) end
redis.call('SET', P .. 'gone:' .. id, owner, 'EX', ttl + GONE_TTL)
redis.call('ZADD', P .. 'deadlines', deadline_at, id)
if idempotency_key ~= '' then
  redis.call('HSET', idempotency_key, 'digest', digest, 'id', id)
  redis.call('EXPIRE', idempotency_key, ttl)
end
if string.sub(owner, 1, 1) ~= '_' then
  for _, list in ipairs(owner == '' and {P .. 'jobs'} or {P .. 'jobs', P .. 'jobs:' .. owner}) do
    redis.call('ZADD', list, NOW, id)
    redis.call('EXPIRE', list, ttl)
    -- A few looks at random keep the list at most half as long again as the jobs that still exist.
    for _, some in ipairs(redis.call('ZRANDMEMBER', list, 3)) do
      if redis.call('EXISTS', P .. 'job:' .. some) == 0 then redis.call('ZREM', list, some) end
    end
  end
end
enqueue(id, class, owner, NOW)
local called = has_messages(class) and wants_call and call_idle(P, NOW, class)
if has_messages(class) and wants_call and not called then
  -- Celery's queue of their messages has the same name. The job is written: what is wrong with that queue is no error.
  local unread = redis.pcall('LLEN', class)
  called = type(unread) == 'number' and unread >= @UNREAD_ENOUGH@
end
return {'created', called and 'called' or ''}
