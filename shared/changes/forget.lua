-- Forget the newest entries of images that are older than a time, some at each call.
--
-- KEYS[1]  prefix of all keys
-- ARGV[1]  cursor   of the walk; '0' begins it
-- ARGV[2]  oldest   what is kept begins here, milliseconds since the epoch
-- Returns  the next cursor; '0' when the walk is over
local P, cursor, oldest = KEYS[1], ARGV[1], tonumber(ARGV[2])

local next_cursor, found = unpack(redis.call('HSCAN', P .. 'changed', cursor, 'COUNT', 500))
for i = 1, #found, 2 do
  if tonumber(string.match(found[i + 1], '^%d+')) < oldest then
    redis.call('HDEL', P .. 'changed', found[i])
  end
end
return next_cursor
