-- Tell where a job stands in its queue.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- Returns    {n_ahead, interval_s}: how many jobs are served before it, or -1 when it does not wait; and seconds
--            between two ends, or '' while no pace has been measured
local id = ARGV[4]

local class, owner = unpack(redis.call('HMGET', P .. 'job:' .. id, 'line', 'owner'))
local rank = class and redis.call('ZRANK', line_of(class, owner), id)
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
