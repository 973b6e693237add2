"""The Lua behind JobStore: each script is one transition, so nothing can come between its parts.

KEYS of all but EXTEND: record, pixels, queued, running, done, gone, service_s, as `JobStore` names them.
"""

# ARGV: max_queued, job_ttl_s, pixels, now, id, gone_s, then field and value by turns
CREATE = """
local depth = redis.call('ZCARD', KEYS[3])
if depth >= tonumber(ARGV[1]) then return depth end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2]) end
redis.call('SET', KEYS[6], '1', 'EX', ARGV[2] + ARGV[6])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
return -1
"""

# ARGV: id, worker, now, end of the lease
CLAIM = """
if redis.call('HGET', KEYS[1], 'status') ~= 'queued' then return false end
redis.call('HSET', KEYS[1], 'status', 'running', 'worker', ARGV[2])
redis.call('HSETNX', KEYS[1], 'started_at', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'attempt', 1)
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2])}
"""

# KEYS: running, prefix of the records. ARGV: end of the lease, then id and attempt by turns
EXTEND = """
local held = {}
for i = 2, #ARGV, 2 do
  local record = redis.call('HMGET', KEYS[2] .. ARGV[i], 'status', 'attempt')
  if record[1] == 'running' and record[2] == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i])
    held[#held + 1] = ARGV[i]
  end
end
return held
"""

# ARGV: id, attempt, status, field (result or error), its JSON, now, result_ttl_s, gone_s, kind, service seconds,
# and whether the lease must have run out
FINISH = """
local record = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if record[1] ~= 'running' or record[2] ~= ARGV[2] then return 0 end
if ARGV[11] == '1' and tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or 0) > tonumber(ARGV[6]) then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[3], ARGV[4], ARGV[5], 'finished_at', ARGV[6],
           'expires_at', ARGV[6] + ARGV[7])
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('DEL', KEYS[2])
redis.call('LPUSH', KEYS[5], '1')
redis.call('EXPIRE', KEYS[5], ARGV[7])
redis.call('SET', KEYS[6], '1', 'EX', ARGV[7] + ARGV[8])
redis.call('ZREM', KEYS[4], ARGV[1])
if ARGV[10] ~= '' then
  local old = redis.call('HGET', KEYS[7], ARGV[9])
  redis.call('HSET', KEYS[7], ARGV[9], old and (0.9 * old + 0.1 * ARGV[10]) or ARGV[10])
end
return 1
"""

# ARGV: id, attempt, now
REQUEUE = """
local record = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or 0) > tonumber(ARGV[3]) then return 0 end
redis.call('ZREM', KEYS[4], ARGV[1])
if record[1] ~= 'running' or record[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'status', 'queued')
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return 1
"""

ABANDON = """
if redis.call('HGET', KEYS[1], 'status') ~= 'queued' then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('DEL', KEYS[1], KEYS[2], KEYS[6])
"""
