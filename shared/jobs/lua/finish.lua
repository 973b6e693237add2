-- End a job with what an attempt led to, and measure the pace of the backlog.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- ARGV[4]    id
-- ARGV[5]    held_attempt
-- ARGV[6]    end_status    succeeded or failed
-- ARGV[7]    field         result or error
-- ARGV[8]    payload       its JSON
-- ARGV[9]    image_id      that the attempt has put or deleted; missing of other jobs
-- ARGV[10]   sequence      of that change
-- Returns    the status it ended with: canceled when somebody asked for that meanwhile
--            nothing when the attempt no longer holds the job, or the log here lacks its change: that was written to a
--            primary which another has taken over from
local id, held_attempt, end_status, field, payload = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local image_id, sequence = ARGV[9], ARGV[10]

local status, attempt = unpack(redis.call('HMGET', P .. 'job:' .. id, 'status', 'attempt'))
if attempt ~= held_attempt or (status ~= 'running' and status ~= 'canceling') then return false end
if status == 'canceling' then
  finish(id, 'canceled', '', '')
  return 'canceled'
end
if image_id then
  local newest = redis.call('HGET', P .. 'changed', image_id)
  if not newest or tonumber(string.match(newest, '^%S+ (%S+)')) < tonumber(sequence) then return false end
end
finish(id, end_status, field, payload)
local last, interval = unpack(redis.call('HMGET', P .. 'pace', 'last', 'interval_s'))
if redis.call('EXISTS', P .. 'queued') == 0 then
  redis.call('HDEL', P .. 'pace', 'last')
else
  if last then
    local gap = math.max(0, math.min(NOW - last, @LONGEST_GAP_S@))
    redis.call('HSET', P .. 'pace', 'interval_s', interval and 0.97 * interval + 0.03 * gap or gap)
  end
  redis.call('HSET', P .. 'pace', 'last', AT)
end
return end_status
