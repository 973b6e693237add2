-- Mark ends of jobs that somebody wants to show: asked for, or confirmed. Whoever asks waits for the replicas then.
--
-- KEYS[1]   prefix of all keys
-- ARGV[1]   confirmed  '1' when enough replicas have them, '0' to ask; what is confirmed stays so
-- ARGV[2+]  ends       id and finished_at by turns
-- Returns   ids of the jobs whose ends are those: another primary may have no end of a job, or another one
local P, confirmed, ends = KEYS[1], ARGV[1], {unpack(ARGV, 2)}

local found = {}
for i = 1, #ends, 2 do
  local key = P .. 'job:' .. ends[i]
  local finished_at, marked = unpack(redis.call('HMGET', key, 'finished_at', 'confirmed'))
  if finished_at and tonumber(finished_at) == tonumber(ends[i + 1]) then
    if marked ~= '1' then redis.call('HSET', key, 'confirmed', confirmed) end
    found[#found + 1] = ends[i]
  end
end
return found
