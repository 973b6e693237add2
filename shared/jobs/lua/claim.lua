-- Give a worker the job whose turn it is, for one attempt.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    worker
-- ARGV[5]    lease_end   seconds since the epoch
-- ARGV[6]    only_class  the one to take from, or '' for interactive and bulk by turns
-- Returns    {id, record, pixels}, the record as names and values by turns
--            {'again'} when there may be more behind the many jobs past their deadline that were ended
--            {'suspect'} when a suspect waits, which whoever takes interactive or bulk jobs runs first
--            nothing when no job waits
local worker, lease_end, only_class = ARGV[4], ARGV[5], ARGV[6]

local looks = @EXPIRED_A_CLAIM@
local function next_of(class)
  while looks > 0 do
    looks = looks - 1
    local owner = redis.call('ZRANGE', P .. 'turns:' .. class, 0, 0)[1]
    if not owner then return nil end
    local id = redis.call('ZRANGE', line_of(class, owner), 0, 0)[1]
    if not id then
      redis.call('ZREM', P .. 'turns:' .. class, owner)
    elseif take(id, class, owner) then
      return id
    end
  end
end

local id
local ordinary = only_class == '' or only_class == 'interactive' or only_class == 'bulk'
if ordinary and redis.call('EXISTS', P .. 'turns:suspect') == 1 then return {'suspect'} end
if only_class ~= '' then
  id = next_of(only_class)
else
  local bulk_first = (redis.call('GET', P .. 'turn') or 0) % @BULK_TURN@ == 0
  id = next_of(bulk_first and 'bulk' or 'interactive') or next_of(bulk_first and 'interactive' or 'bulk')
end
if not id then return looks == 0 and {'again'} end
return start(id, worker, lease_end)
