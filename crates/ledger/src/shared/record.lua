-- Stores an entry under its keys, as one step that nothing comes between.
--
-- KEYS: the entry, the scope's order, then the index of each key.
-- ARGV: the entry's mark, what is stored, the time to live in milliseconds, how many entries the
--       scope may have, how many marks an index may hold, how many entries may be evicted, and what
--       the names of this scope's entries and indices begin with.
-- Gives how many entries were found expired, and how many were evicted.
--
-- A mark is 20 bytes: the entry's id and the size of what is stored. An index is marks, newest first.
-- What is evicted is named by what it holds itself, in the slot of KEYS all the same.
local mark, stored, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most, candidates, victims = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, indices = ARGV[7], ARGV[8]

local function without(index, gone, room)
  local kept = {}
  for at = 1, #index, 20 do
    local other = string.sub(index, at, at + 19)
    if other ~= gone and #kept < room then kept[#kept + 1] = other end
  end
  return table.concat(kept)
end

redis.call('SET', KEYS[1], stored, 'PX', ttl)
for at = 3, #KEYS do
  local older = redis.call('GET', KEYS[at]) or ''
  redis.call('SET', KEYS[at], mark .. without(older, mark, candidates - 1), 'PX', ttl)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', KEYS[2], now, mark)
redis.call('PEXPIRE', KEYS[2], ttl)
local expired = redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ttl * 1000)

local surplus = math.min(redis.call('ZCARD', KEYS[2]) - most, victims)
local evicted = 0
if surplus > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[2], surplus)
  for at = 1, #oldest, 2 do
    local gone = oldest[at]
    local name = entries .. string.sub(gone, 1, 16)
    local count = redis.call('GETRANGE', name, 0, 1)
    if #count == 2 then
      local keys = redis.call('GETRANGE', name, 2, 1 + 16 * (string.byte(count, 1) * 256 + string.byte(count, 2)))
      redis.call('UNLINK', name)
      for key = 1, #keys, 16 do
        local index = indices .. string.sub(keys, key, key + 15)
        local older = redis.call('GET', index)
        if older then
          local left = without(older, gone, candidates)
          if left == '' then
            redis.call('DEL', index)
          else
            redis.call('SET', index, left, 'KEEPTTL')
          end
        end
      end
    end
    evicted = evicted + 1
  end
end
return {expired, evicted}
