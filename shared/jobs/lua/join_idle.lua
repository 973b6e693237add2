-- Put a thread on the list of those that wait for jobs, unless there is work already.
--
-- KEYS[1]   prefix of all keys
-- ARGV[1]   thread   its name
-- ARGV[2]   until    when it stops waiting, seconds since the epoch
-- ARGV[3+]  classes  those it takes jobs of
-- Returns   1 when it is on the list now, 0 when there is work
local P, thread, until_at, classes = KEYS[1], ARGV[1], ARGV[2], {unpack(ARGV, 3)}

for _, class in ipairs(classes) do
  if redis.call('EXISTS', P .. 'turns:' .. class, P .. 'turns:suspect') > 0 then return 0 end
end
for _, class in ipairs(classes) do redis.call('ZADD', P .. 'idle:' .. class, until_at, thread) end
return 1
