"""The Lua behind the job store: each script is one transition, so nothing can come between its parts.

KEYS of every script: the prefix of all keys. ARGV of every script: now, result_ttl_s, gone_s; its own begin at 4.

Scripts that end or move on jobs may run when Redis is full: they are what makes room again.
"""

from shared.jobs.contract import JobError
from shared.jobs.idle import CALL_IDLE

_EXPIRED = JobError(
    code="deadline_exceeded", detail="the job was not finished before its deadline", retryable=True
).model_dump_json()

# Keeping the photos of failed jobs lets them be retried; a model that fails every job must not fill Redis with them.
_MAX_RETAINED = 200

# A backlog's pace is measured between two ends with work waiting; a longer gap means that nobody worked.
_LONGEST_GAP_S = 10

# A claim that meets a backlog of jobs past their deadline must not hold up everybody else in Redis while it ends them.
_EXPIRED_A_CLAIM = 200

# One in so many claims looks at bulk jobs first, so that they are never starved.
_BULK_TURN = 8

_PRELUDE = f"""
local P, NOW, RESULT_TTL, GONE = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function line_of(class, owner) return P .. 'line:' .. class .. ':' .. owner end

-- Reindexes and their shards are claimed by threads of their own, which wait for a word on a list; no message counts.
local function has_messages(class) return class ~= 'reindex' and class ~= 'shard' end

local function enqueue(id, class, owner, created_at)
  if has_messages(class) then
    redis.call('ZADD', P .. 'queued', NOW, id)
  else
    redis.call('LPUSH', P .. 'wake:' .. class, '1')
    redis.call('LTRIM', P .. 'wake:' .. class, 0, 99)
  end
  redis.call('ZADD', line_of(class, owner), created_at, id)
  -- A newcomer is served after those who were already there, and before they are served again.
  redis.call('ZADD', P .. 'turns:' .. class, 'NX', redis.call('GET', P .. 'turn') or 0, owner)
end

local function dequeue(id, class, owner)
  redis.call('ZREM', P .. 'queued', id)
  redis.call('ZREM', line_of(class, owner), id)
  if redis.call('EXISTS', line_of(class, owner)) == 0 then redis.call('ZREM', P .. 'turns:' .. class, owner) end
end

local function finish(id, status, field, payload)
  local key, pixels = P .. 'job:' .. id, P .. 'pixels:' .. id
  local owner, class, webhook = unpack(redis.call('HMGET', key, 'owner', 'line', 'webhook_url'))
  dequeue(id, class, owner)
  redis.call('ZREM', P .. 'running', id)
  redis.call('ZREM', P .. 'deadlines', id)
  redis.call('HSET', key, 'status', status, 'finished_at', ARGV[1], 'expires_at', NOW + RESULT_TTL)
  if field ~= '' then redis.call('HSET', key, field, payload) end
  redis.call('EXPIRE', key, RESULT_TTL)
  redis.call('ZREMRANGEBYSCORE', P .. 'retained', '-inf', NOW)
  local kept = status == 'failed' and redis.call('ZCARD', P .. 'retained') < {_MAX_RETAINED}
  if kept and redis.call('EXPIRE', pixels, RESULT_TTL) == 1 then
    redis.call('ZADD', P .. 'retained', NOW + RESULT_TTL, id)
  else
    redis.call('DEL', pixels)
  end
  redis.call('LPUSH', P .. 'done:' .. id, '1')
  redis.call('EXPIRE', P .. 'done:' .. id, RESULT_TTL)
  redis.call('SET', P .. 'gone:' .. id, owner, 'EX', RESULT_TTL + GONE)
  if webhook then redis.call('ZADD', P .. 'webhooks', NOW, id) end
end

local function expire(id) finish(id, 'expired', 'error', '{_EXPIRED}') end
"""


def _script(body: str, flags: str = "allow-oom") -> str:
    return f"#!lua{f' flags={flags}' if flags else ''}{_PRELUDE}{body}"


# ARGV: id, max_queued, max_queued_per_owner, job_ttl_s, pixels, idempotency key or '', digest of the request, owner,
# class, deadline, '1' to call an idle thread, then field and value by turns. Returns what became of it, and an id or a
# number to say more. Of reindexes there is one at a time.
CREATE = _script(
    CALL_IDLE
    + """
local id, known, owner, class = ARGV[4], ARGV[9], ARGV[11], ARGV[12]
if ARGV[9] ~= '' then
  local digest, first = unpack(redis.call('HMGET', known, 'digest', 'id'))
  if first then
    if digest ~= ARGV[10] then return {'conflict', first} end
    return {'known', first}
  end
end
if class == 'reindex' then
  local other = redis.call('GET', P .. 'reindex')
  local status = other and redis.call('HGET', P .. 'job:' .. other, 'status')
  if status == 'queued' or status == 'running' or status == 'canceling' then return {'busy', other} end
  redis.call('SET', P .. 'reindex', id, 'EX', ARGV[7] + RESULT_TTL)
end
local depth = redis.call('ZCARD', P .. 'queued')
if depth >= tonumber(ARGV[5]) then return {'full', tostring(depth)} end
local own = redis.call('ZCARD', line_of('interactive', owner)) + redis.call('ZCARD', line_of('bulk', owner))
if own >= tonumber(ARGV[6]) then return {'share', tostring(own)} end
local key, ttl = P .. 'job:' .. id, ARGV[7] + RESULT_TTL
redis.call('HSET', key, unpack(ARGV, 15))
redis.call('EXPIRE', key, ttl)
if ARGV[8] ~= '' then redis.call('SET', P .. 'pixels:' .. id, ARGV[8], 'EX', ARGV[7]) end
redis.call('SET', P .. 'gone:' .. id, owner, 'EX', ttl + GONE)
redis.call('ZADD', P .. 'deadlines', ARGV[13], id)
if ARGV[9] ~= '' then
  redis.call('HSET', known, 'digest', ARGV[10], 'id', id)
  redis.call('EXPIRE', known, ttl)
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
local told = not has_messages(class) or (ARGV[14] == '1' and call_idle(class))
return {'created', told and 'called' or ''}
""",
    flags="",
)

# ARGV: worker, end of the lease, the one class to take from, or '' for interactive and bulk by turns.
# Returns {id, record, pixels}, or {'again'} when there may be more, or nothing; or {'suspect'} when one waits, which
# whoever takes interactive or bulk jobs runs first.
CLAIM = _script(
    f"""
local looks = {_EXPIRED_A_CLAIM}
local function next_of(class)
  while looks > 0 do
    looks = looks - 1
    local owner = redis.call('ZRANGE', P .. 'turns:' .. class, 0, 0)[1]
    if not owner then return nil end
    local id = redis.call('ZRANGE', line_of(class, owner), 0, 0)[1]
    if not id then
      redis.call('ZREM', P .. 'turns:' .. class, owner)
    else
      dequeue(id, class, owner)
      local status, deadline = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'deadline_at'))
      if status == 'queued' then
        if tonumber(deadline) > NOW then
          redis.call('ZADD', P .. 'turns:' .. class, 'XX', redis.call('INCR', P .. 'turn'), owner)
          return id
        end
        expire(id)
      end
    end
  end
end

local id
local ordinary = ARGV[6] == '' or ARGV[6] == 'interactive' or ARGV[6] == 'bulk'
if ordinary and redis.call('EXISTS', P .. 'turns:suspect') == 1 then return {{'suspect'}} end
if ARGV[6] ~= '' then
  id = next_of(ARGV[6])
else
  local bulk_first = (redis.call('GET', P .. 'turn') or 0) % {_BULK_TURN} == 0
  id = next_of(bulk_first and 'bulk' or 'interactive') or next_of(bulk_first and 'interactive' or 'bulk')
end
if not id then return looks == 0 and {{'again'}} end
local key = P .. 'job:' .. id
redis.call('HSET', key, 'status', 'running', 'worker', ARGV[4])
redis.call('HSETNX', key, 'started_at', ARGV[1])
redis.call('HINCRBY', key, 'attempt', 1)
redis.call('ZADD', P .. 'running', ARGV[5], id)
return {{id, redis.call('HGETALL', key), redis.call('GET', P .. 'pixels:' .. id)}}
"""
)

# ARGV: end of the lease, then id and attempt by turns. Returns those somebody still wants the result of, likewise.
EXTEND = _script(
    """
local wanted = {}
for i = 5, #ARGV, 2 do
  local status, attempt = unpack(redis.call('HMGET', P .. 'job:' .. ARGV[i], 'status', 'attempt'))
  if (status == 'running' or status == 'canceling') and attempt == ARGV[i + 1] then
    redis.call('ZADD', P .. 'running', ARGV[4], ARGV[i])
    if status == 'running' then
      wanted[#wanted + 1] = ARGV[i]
      wanted[#wanted + 1] = attempt
    end
  end
end
return wanted
"""
)

# ARGV: id, attempt, status, field (result or error), its JSON. Returns the status it ended with, or nothing when the
# attempt no longer holds the job.
FINISH = _script(
    f"""
local status, attempt = unpack(redis.call('HMGET', P .. 'job:' .. ARGV[4], 'status', 'attempt'))
if attempt ~= ARGV[5] or (status ~= 'running' and status ~= 'canceling') then return false end
if status == 'canceling' then
  finish(ARGV[4], 'canceled', '', '')
  return 'canceled'
end
finish(ARGV[4], ARGV[6], ARGV[7], ARGV[8])
local last, interval = unpack(redis.call('HMGET', P .. 'pace', 'last', 'interval_s'))
if redis.call('EXISTS', P .. 'queued') == 0 then
  redis.call('HDEL', P .. 'pace', 'last')
else
  if last then
    local gap = math.max(0, math.min(NOW - last, {_LONGEST_GAP_S}))
    redis.call('HSET', P .. 'pace', 'interval_s', interval and 0.97 * interval + 0.03 * gap or gap)
  end
  redis.call('HSET', P .. 'pace', 'last', ARGV[1])
end
return ARGV[6]
"""
)

# ARGV: id. Returns the status it has now, or nothing when there is no such job, or 'ended' when it was too late.
CANCEL = _script(
    """
local status = redis.call('HGET', P .. 'job:' .. ARGV[4], 'status')
if not status then return false end
if status == 'queued' then
  finish(ARGV[4], 'canceled', '', '')
  return 'canceled'
end
if status ~= 'running' and status ~= 'canceling' then return 'ended' end
redis.call('HSET', P .. 'job:' .. ARGV[4], 'status', 'canceling')
return 'canceling'
"""
)

# ARGV: max_attempts, the error of a job whose workers all died, the most to look at in one round.
# Returns three lists of ids: requeued, failed, expired.
REAP = _script(
    """
local requeued, failed, expired = {}, {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'running', '-inf', NOW, 'LIMIT', 0, ARGV[6])) do
  local key = P .. 'job:' .. id
  local status, owner, class, created_at = unpack(redis.call('HMGET', key, 'status', 'owner', 'line', 'created_at'))
  local deaths = status == 'running' and redis.call('HINCRBY', key, 'deaths', 1)
  -- A shard is never a suspect: only workers with an index run those. One attempt earlier its photos are tried singly.
  local most = tonumber(ARGV[4]) - (class == 'shard' and 1 or 0)
  if status == 'canceling' then
    finish(id, 'canceled', '', '')
  elseif status == 'running' and deaths >= most then
    finish(id, 'failed', 'error', ARGV[5])
    failed[#failed + 1] = id
  else
    redis.call('ZREM', P .. 'running', id)
    if status == 'running' then
      -- Its last attempt is made alone: if it is what kills workers, it must not take its neighbours along.
      if deaths + 1 >= tonumber(ARGV[4]) and class ~= 'reindex' then class = 'suspect' end
      redis.call('HSET', key, 'status', 'queued', 'line', class)
      enqueue(id, class, owner, created_at)
      requeued[#requeued + 1] = id
    end
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', NOW, 'LIMIT', 0, ARGV[6])) do
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
"""
)

# ARGV: id, attempt. Hands a job back that its worker will not finish: queued again, and no attempt is held against it.
RELEASE = _script(
    """
local key = P .. 'job:' .. ARGV[4]
local status, attempt, owner, class, created_at =
  unpack(redis.call('HMGET', key, 'status', 'attempt', 'owner', 'line', 'created_at'))
if attempt ~= ARGV[5] then return end
if status == 'canceling' then
  finish(ARGV[4], 'canceled', '', '')
elseif status == 'running' then
  redis.call('ZREM', P .. 'running', ARGV[4])
  redis.call('HSET', key, 'status', 'queued')
  enqueue(ARGV[4], class, owner, created_at)
end
"""
)

# ARGV: id, attempt, the progress as JSON, how much is done for good. Returns the job's status, or nothing when the
# attempt no longer holds it. Attempts that got further than any before are not what kills workers.
PROGRESS = _script(
    """
local key = P .. 'job:' .. ARGV[4]
local status, attempt, furthest = unpack(redis.call('HMGET', key, 'status', 'attempt', 'furthest'))
if attempt ~= ARGV[5] or (status ~= 'running' and status ~= 'canceling') then return false end
redis.call('HSET', key, 'progress', ARGV[6])
if tonumber(ARGV[7]) > tonumber(furthest or 0) then
  redis.call('HSET', key, 'furthest', ARGV[7])
  redis.call('HDEL', key, 'deaths')
end
return status
"""
)

# ARGV: id. Ends a job whose deadline is over; for readers who come before the reaper.
EXPIRE = _script(
    """
local status, deadline = unpack(redis.call('HMGET', P .. 'job:' .. ARGV[4], 'status', 'deadline_at'))
if (status == 'queued' or status == 'running' or status == 'canceling') and tonumber(deadline) <= NOW then
  expire(ARGV[4])
end
"""
)

# Returns the jobs in line by class.
BACKLOG = _script(
    """
local counts = {}
for i, class in ipairs({'interactive', 'bulk', 'suspect', 'reindex', 'shard'}) do
  counts[i] = 0
  for _, owner in ipairs(redis.call('ZRANGE', P .. 'turns:' .. class, 0, -1)) do
    counts[i] = counts[i] + redis.call('ZCARD', line_of(class, owner))
  end
end
return counts
""",
    flags="allow-oom,no-writes",
)

# ARGV: id. Returns how many jobs are served before it, or -1 when it does not wait, and seconds between two ends.
PLACE = _script(
    """
local class, owner = unpack(redis.call('HMGET', P .. 'job:' .. ARGV[4], 'line', 'owner'))
local rank = class and redis.call('ZRANK', line_of(class, owner), ARGV[4])
if not rank then return {-1, '0'} end
local ahead = rank
local function count(other, at_most)
  for _, someone in ipairs(redis.call('ZRANGE', P .. 'turns:' .. other, 0, 999)) do
    if other ~= class or someone ~= owner then
      ahead = ahead + math.min(redis.call('ZCARD', line_of(other, someone)), at_most)
    end
  end
end
count(class, rank + 1)
if class ~= 'suspect' then count('suspect', math.huge) end
if class == 'bulk' then count('interactive', math.huge) end
return {ahead, redis.call('HGET', P .. 'pace', 'interval_s') or ''}
""",
    flags="allow-oom,no-writes",
)
