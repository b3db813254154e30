"""The Lua scripts of rooms. Each uses keys of one room, or of one name; times are by Redis' clock, in milliseconds."""

from __future__ import annotations

from mien_shared.bus import keys
from mien_shared.bus.trip import Script

#: Most events of a room's log. They live for EVENTS_S at most.
LOG_CAP = 512

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# append: adds one event to a log and returns its sequence number. Older events than EVENTS_S are deleted.
_APPEND = f"""
local function append(now, events, sequence, body, life)
  local last = tonumber(redis.call('GET', sequence)) or 0
  local number = string.format('%.0f', math.max(now, last + 1))
  redis.call('SET', sequence, number, 'EX', life)
  redis.call('XADD', events, 'MAXLEN', {LOG_CAP}, number .. '-0', 'p', string.format('%.0f', last), 'e', body)
  redis.call('XTRIM', events, 'MINID', string.format('%.0f', now - {keys.EVENTS_S * 1000}))
  redis.call('EXPIRE', events, {keys.EVENTS_S})
  return number
end
"""

# Everything of a room at one moment. KEYS: record, participants, presence, sequence, version, ended.
READ = Script(
    _NOW
    + """
return {string.format('%.0f', now), redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', KEYS[3]), redis.call('GET', KEYS[4]), redis.call('GET', KEYS[5]), redis.call('GET', KEYS[6])}
"""
)

# Writes a change if the version is still the expected one; returns the sequence number of its last event, or nothing.
# The deletions come first, because a full Redis refuses a write, but not in a script that has deleted something.
# KEYS: record, participants, presence, gone, events, sequence, version, ended.
# ARGV: expected version, life in s, life of marks in ms, record or nothing, reason of the end or nothing, and then four
# lists, each after its length: ids that leave, participants (id, record), connections (participant, connection) and
# events.
COMMIT = Script(
    _NOW
    + _APPEND
    + """
if redis.call('EXISTS', KEYS[8]) == 1 or (redis.call('GET', KEYS[7]) or '') ~= ARGV[1] then return false end
local life, mark, place = tonumber(ARGV[2]), tonumber(ARGV[3]), 6
local function list(size)
  local found = {}
  for i = 1, tonumber(ARGV[place]) * size do found[i] = ARGV[place + i] end
  place = place + 1 + #found
  return found
end
local gone, put, connected, events = list(1), list(2), list(2), list(1)
for _, id in ipairs(gone) do
  redis.call('HDEL', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end
if ARGV[5] ~= '' then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[7]) end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - mark)
for _, id in ipairs(gone) do redis.call('ZADD', KEYS[4], now, id) end
if #gone > 0 then redis.call('PEXPIRE', KEYS[4], mark) end
for i = 1, #put, 2 do redis.call('HSET', KEYS[2], put[i], put[i + 1]) end
for i = 1, #connected, 2 do
  redis.call('HSET', KEYS[3], connected[i], string.format('%.0f', now) .. ' ' .. connected[i + 1])
end
local number = ''
for _, body in ipairs(events) do number = append(now, KEYS[5], KEYS[6], body, life) end
if ARGV[5] ~= '' then
  redis.call('SET', KEYS[8], ARGV[5], 'PX', mark)
  redis.call('EXPIRE', KEYS[6], """
    + str(keys.EVENTS_S)
    + """)
  return number
end
if ARGV[4] ~= '' then redis.call('SET', KEYS[1], ARGV[4], 'EX', life) else redis.call('EXPIRE', KEYS[1], life) end
redis.call('SET', KEYS[7], string.format('%.0f', math.max(now, (tonumber(ARGV[1]) or 0) + 1)), 'EX', life)
for i = 2, 3 do redis.call('EXPIRE', KEYS[i], life) end
return number
"""
)

# Adds one event to the log of a room that lives. KEYS: record, events, sequence. ARGV: event, life in s.
SAY = Script(
    _NOW
    + _APPEND
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return append(now, KEYS[2], KEYS[3], ARGV[1], ARGV[2])
"""
)

# Keeps a room and one connected participant alive; writes what is missing unless it has ended, or may have ended.
# Returns what became of it and, while it lives, the time, the room's record and the participant's record.
# KEYS: record, participants, presence, gone, sequence, version, ended.
# ARGV: record, participant's id and record, connection, when the caller last saw them (ms), life in s, of marks in ms.
KEEP = Script(
    _NOW
    + """
if redis.call('EXISTS', KEYS[7]) == 1 then return {'ended'} end
if redis.call('ZSCORE', KEYS[4], ARGV[2]) then return {'gone'} end
local away = now - tonumber(ARGV[5]) >= tonumber(ARGV[7])
if away and redis.call('EXISTS', KEYS[1]) == 0 then return {'ended'} end
if away and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return {'gone'} end
local owner = redis.call('HGET', KEYS[3], ARGV[2])
owner = owner and string.match(owner, '^%d+ (.*)$')
if owner and owner ~= ARGV[4] and owner ~= '' then return {'replaced'} end
local life, became = ARGV[6], 'kept'
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[1], ARGV[1], 'EX', life) end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  redis.call('SET', KEYS[6], string.format('%.0f', now), 'EX', life)
  became = 'restored'
end
redis.call('HSET', KEYS[3], ARGV[2], string.format('%.0f', now) .. ' ' .. ARGV[4])
for _, i in ipairs({1, 2, 3, 5, 6}) do redis.call('EXPIRE', KEYS[i], life) end
return {became, string.format('%.0f', now), redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])}
"""
)

# A connection has closed: it owns its participant no longer. KEYS: presence. ARGV: participant, connection.
DISCONNECT = Script(
    _NOW
    + """
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or string.match(owner, '^%d+ (.*)$') ~= ARGV[2] then return end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ')
"""
)

# Takes a name for a room, unless another room has it: returns the id of the room that has it.
# KEYS: name. ARGV: room, life in s, the room that had it and has ended, or nothing.
CLAIM_NAME = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
""")

# Frees a name if the room has it. KEYS: name. ARGV: room.
FREE_NAME = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
