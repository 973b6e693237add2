-- Prolong the leases of the attempts that a worker holds.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    lease_end  seconds since the epoch
-- ARGV[5+]   held       id and attempt by turns
-- Returns    those whose result somebody still wants, likewise
local lease_end = ARGV[4]

local wanted = {}
for i = 5, #ARGV, 2 do
  local id, held_attempt = ARGV[i], ARGV[i + 1]
  local status, attempt = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'attempt'))
  if (status == 'running' or status == 'canceling') and attempt == held_attempt then
    redis.call('ZADD', P .. 'running', lease_end, id)
    if status == 'running' then
      wanted[#wanted + 1] = id
      wanted[#wanted + 1] = attempt
    end
  end
end
return wanted
