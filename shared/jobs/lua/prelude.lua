-- Comes before every script of the job store: the arguments that all have, and the steps that several take.
--
-- KEYS[1]  prefix of all keys
-- ARGV[1]  now         seconds since the epoch
-- ARGV[2]  result_ttl  seconds for which a job is kept after its end
-- ARGV[3]  gone_ttl    seconds for which its id is known after that
--
-- The arguments of the script itself begin at ARGV[4]. Where one says class, it means the queue a job waits in, which
-- is the field `line` of its record: interactive, bulk, suspect, reindex or shard.
-- Returns nothing: the script follows.

-- AT is the time as it was sent: records keep it to the letter.
local P, AT, RESULT_TTL, GONE_TTL = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NOW = tonumber(AT)

local function line_of(class, owner) return P .. 'line:' .. class .. ':' .. owner end

-- Reindexes and their shards are claimed by threads of their own, which wait on a list; no message is sent for them.
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

