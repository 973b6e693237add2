-- Give a worker the job whose turn it is, for one attempt.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    worker
-- ARGV[5]    lease_end   seconds since the epoch
-- ARGV[6]    only_class  the one to take from, or '' for interactive and bulk by turns
-- ARGV[7+]   lacking     `spec` of records whose photos are passed over, as the worker has no model for them yet
-- Returns    {id, record, pixels}, the record as names and values by turns
--            {'again'} when there may be more behind the many jobs past their deadline that were ended
--            {'suspect'} when a suspect waits, which whoever takes interactive or bulk jobs runs first
--            nothing when no job waits, or none near the front that is not passed over
local worker, lease_end, only_class, lacking = ARGV[4], ARGV[5], ARGV[6], {unpack(ARGV, 7)}

local passes_over = {}
for _, spec in ipairs(lacking) do passes_over[spec] = true end

local n_passed = 0
local function first_of(class, owner)
  local ids = redis.call('ZRANGE', line_of(class, owner), 0, #lacking > 0 and @PASSED_A_CLAIM@ or 0)
  for _, id in ipairs(ids) do
    local spec = #lacking > 0 and redis.call('HGET', P .. 'job:' .. id, 'spec')
    if not passes_over[spec] or redis.call('EXISTS', P .. 'pixels:' .. id) == 0 then return id end
    n_passed = n_passed + 1
  end
  return nil, #ids
end

local looks = @EXPIRED_A_CLAIM@
local function next_of(class)
  local nth = 0
  while looks > 0 and n_passed < @PASSED_A_CLAIM@ do
    local owner = redis.call('ZRANGE', P .. 'turns:' .. class, nth, nth)[1]
    if not owner then return nil end
    local id, n_waiting = first_of(class, owner)
    if id then
      looks = looks - 1
      if take(id, class, owner) then return id end
    elseif n_waiting == 0 then
      looks = looks - 1
      redis.call('ZREM', P .. 'turns:' .. class, owner)
    else
      nth = nth + 1  -- it keeps its turn, for workers that can take its jobs
    end
  end
end

local function suspect_waits()
  local owners = redis.call('ZRANGE', P .. 'turns:suspect', 0, -1)
  if #lacking == 0 then return #owners > 0 end
  for _, owner in ipairs(owners) do
    if first_of('suspect', owner) then return true end
  end
end

local id
local ordinary = only_class == '' or only_class == 'interactive' or only_class == 'bulk'
if ordinary and suspect_waits() then return {'suspect'} end
if only_class ~= '' then
  id = next_of(only_class)
else
  local bulk_first = (redis.call('GET', P .. 'turn') or 0) % @BULK_TURN@ == 0
  id = next_of(bulk_first and 'bulk' or 'interactive') or next_of(bulk_first and 'interactive' or 'bulk')
end
if not id then return looks == 0 and {'again'} end
return start(id, worker, lease_end)
