-- Forget the feedback of some searches, as far as nothing came of them meanwhile.
--
-- KEYS[1]  prefix of all keys
-- ARGV     by turns a job id, and when feedback of it came last, as it was read
-- Returns  how many are forgotten
local P = KEYS[1]
local order, n = P .. 'feedback', 0

for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', order, ARGV[i]) == ARGV[i + 1] then
    redis.call('DEL', P .. 'feedback:' .. ARGV[i])
    redis.call('ZREM', order, ARGV[i])
    n = n + 1
  end
end
return n
