-- Forget the feedback of some searches, as far as nothing came of them meanwhile.
--
-- KEYS[1]  prefix of all keys
-- ARGV     by turns a job id, and when feedback of it came last, as it was read
-- Returns  how many are forgotten
local P, pairs_given = KEYS[1], ARGV
local order, n = P .. 'feedback', 0

for i = 1, #pairs_given, 2 do
  local job_id, changed = pairs_given[i], pairs_given[i + 1]
  if redis.call('ZSCORE', order, job_id) == changed then
    redis.call('DEL', P .. 'feedback:' .. job_id)
    redis.call('ZREM', order, job_id)
    n = n + 1
  end
end
return n
