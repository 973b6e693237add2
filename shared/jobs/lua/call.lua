-- Call a thread that waits for jobs of a class. Includes call_idle.lua.
--
-- KEYS[1]  prefix of all keys
-- ARGV[1]  now    seconds since the epoch
-- ARGV[2]  class
-- Returns  1 when one waited, else 0
local P, now, class = KEYS[1], tonumber(ARGV[1]), ARGV[2]

return call_idle(P, now, class) and 1 or 0
