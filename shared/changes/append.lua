-- Append what a job asks for to the change log, once, however often the job runs.
--
-- KEYS[1]   prefix of all keys
-- ARGV[1]   job_id
-- ARGV[2]   held_attempt
-- ARGV[3]   image_id
-- ARGV[4]   sequence      number of the change
-- ARGV[5]   sha256        of the photo, or '-' when the image is deleted
-- ARGV[6+]  fields        of the photo: name and value by turns
-- Returns   the entry's id, also when it is there already
--           '' when a change of the image that was accepted later is there
--           nothing when the attempt no longer holds the job
local P, job_id, held_attempt = KEYS[1], ARGV[1], ARGV[2]
local image_id, sequence, sha256, fields = ARGV[3], ARGV[4], ARGV[5], {unpack(ARGV, 6)}

local status, attempt = unpack(redis.call('HMGET', P .. 'job:' .. job_id, 'status', 'attempt'))
if status ~= 'running' or attempt ~= held_attempt then return false end
local newest = redis.call('HGET', P .. 'changed', image_id)
if newest then
  local newest_entry, newest_sequence = string.match(newest, '^(%S+) (%S+)')
  if newest_sequence == sequence then return newest_entry end
  if tonumber(newest_sequence) > tonumber(sequence) then return '' end
end
local entry = redis.call('XADD', P .. 'changes', '*', 'number', redis.call('INCR', P .. 'changes:count'),
  'image_id', image_id, 'sequence', sequence, unpack(fields))
redis.call('HSET', P .. 'changed', image_id, entry .. ' ' .. sequence .. ' ' .. sha256)
return entry
