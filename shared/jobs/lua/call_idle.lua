-- Comes before scripts that call a worker's thread which waits for jobs: the function that does it.
--
-- It takes what it needs as arguments, so it needs no prelude, no KEYS and no ARGV.
-- Returns nothing: the script follows.

-- Returns whether a thread waited for jobs of `class`, and was called.
local function call_idle(prefix, now, class)
  redis.call('ZREMRANGEBYSCORE', prefix .. 'idle:' .. class, '-inf', now)
  local thread = redis.call('ZREVRANGE', prefix .. 'idle:' .. class, 0, 0)[1]
  if not thread then return false end
  redis.call('ZREM', prefix .. 'idle:interactive', thread)
  redis.call('ZREM', prefix .. 'idle:bulk', thread)
  -- A list of its own, so that no other thread is woken in its place. Those of earlier builds share one per class.
  local word = prefix .. 'word:' .. (string.sub(thread, 1, 1) == '@' and thread or class)
  redis.call('LPUSH', word, '1')
  redis.call('LTRIM', word, 0, 99)
  redis.call('EXPIRE', word, 60)
  return true
end

