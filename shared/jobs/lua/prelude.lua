-- Comes before every script of the job store: the arguments that all have, and the steps that several take.
--
-- KEYS[1]  prefix of all keys
-- ARGV[1]  now         seconds since the epoch
-- ARGV[2]  result_ttl  seconds for which a job is kept after its end
-- ARGV[3]  gone_ttl    seconds for which its id is known after that
--
-- The arguments of the script itself begin at ARGV[4]. Where one says class, it means the queue a job waits in, which
-- is the field `line` of its record: interactive, bulk, suspect, reindex, shard or duplicates.
-- Returns nothing: the script follows.

-- AT is the time as it was sent: records keep it to the letter.
local P, AT, RESULT_TTL, GONE_TTL = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NOW = tonumber(AT)

local function line_of(class, owner) return P .. 'line:' .. class .. ':' .. owner end

-- Reindexes, their shards and duplicates jobs are claimed by threads of their own, which wait on a list; no message is
-- sent for them.
local function has_messages(class) return class ~= 'reindex' and class ~= 'shard' and class ~= 'duplicates' end

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

-- Ends a job as `status`, keeping `payload` in `field` of its record unless that is ''.
local function finish(id, status, field, payload)
  local key, pixels = P .. 'job:' .. id, P .. 'pixels:' .. id
  local owner, class, webhook = unpack(redis.call('HMGET', key, 'owner', 'line', 'webhook_url'))
  dequeue(id, class, owner)
  redis.call('ZREM', P .. 'running', id)
  redis.call('ZREM', P .. 'deadlines', id)
  redis.call('HSET', key, 'status', status, 'finished_at', AT, 'expires_at', NOW + RESULT_TTL)
  if field ~= '' then redis.call('HSET', key, field, payload) end
  redis.call('EXPIRE', key, RESULT_TTL)
  redis.call('ZREMRANGEBYSCORE', P .. 'retained', '-inf', NOW)
  local kept = status == 'failed' and redis.call('ZCARD', P .. 'retained') < @MAX_RETAINED@
  if kept and redis.call('EXPIRE', pixels, RESULT_TTL) == 1 then
    redis.call('ZADD', P .. 'retained', NOW + RESULT_TTL, id)
  else
    redis.call('DEL', pixels)
  end
  redis.call('LPUSH', P .. 'done:' .. id, '1')
  redis.call('EXPIRE', P .. 'done:' .. id, RESULT_TTL)
  redis.call('SET', P .. 'gone:' .. id, owner, 'EX', RESULT_TTL + GONE_TTL)
  if webhook then redis.call('ZADD', P .. 'webhooks', NOW, id) end
end

local function expire(id) finish(id, 'expired', 'error', @EXPIRED_ERROR@) end

-- Takes a job out of its queue. Returns whether it may be started: it is queued, and its deadline is not over; where it
-- is over the job is expired.
local function take(id, class, owner)
  dequeue(id, class, owner)
  local status, deadline_at = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'deadline_at'))
  if status ~= 'queued' then return false end
  if tonumber(deadline_at) <= NOW then
    expire(id)
    return false
  end
  redis.call('ZADD', P .. 'turns:' .. class, 'XX', redis.call('INCR', P .. 'turn'), owner)
  return true
end

-- Gives a job that was taken to a worker, for one attempt. Returns {id, record, pixels}.
local function start(id, worker, lease_end)
  local key = P .. 'job:' .. id
  redis.call('HSET', key, 'status', 'running', 'worker', worker)
  redis.call('HSETNX', key, 'started_at', AT)
  redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('ZADD', P .. 'running', lease_end, id)
  return {id, redis.call('HGETALL', key), redis.call('GET', P .. 'pixels:' .. id)}
end

