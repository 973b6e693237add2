-- Count the jobs that wait, by class.
--
-- KEYS[1]    prefix of all keys
-- ARGV[1-3]  see prelude.lua
-- Returns    six counts: interactive, bulk, suspect, reindex, shard, duplicates

local counts = {}
for i, class in ipairs({'interactive', 'bulk', 'suspect', 'reindex', 'shard', 'duplicates'}) do
  counts[i] = 0
  for _, owner in ipairs(redis.call('ZRANGE', P .. 'turns:' .. class, 0, -1)) do
    counts[i] = counts[i] + redis.call('ZCARD', line_of(class, owner))
  end
end
return counts
