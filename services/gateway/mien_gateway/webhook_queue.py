"""Webhooks in Redis: where they go, and the deliveries that wait.

A delivery waits until it is due. A gateway that takes one makes it due again LEASE_S later, so another gateway sends it
if this one is killed. It is removed when the receiver has answered with 2xx, or after the last attempt. So a delivery
is sent at least once, and rarely twice; its id is the same each time.

Every gateway keeps the list of webhooks in memory and writes it again to a Redis that has none (`-` marks a list that
was written, so that a list whose webhooks were all deleted is not written again).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from mien_shared.bus import keys
from mien_shared.bus.trip import Argument, Script, Trip

#: Most deliveries that wait. Further ones are dropped and counted.
QUEUE_CAP = 10_000
#: How long a gateway may take for one attempt before another gateway makes it.
LEASE_S = 60
_BATCH = 16
_WRITTEN = "-"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Adds deliveries; returns how many were dropped because too many wait. KEYS: due, waiting. ARGV: cap, life in s, and
# then id and delivery of each.
_PUT = Script(
    _NOW
    + """
local dropped = 0
for i = 3, #ARGV, 2 do
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
    dropped = dropped + 1
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('ZADD', KEYS[1], now, ARGV[i])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return dropped
"""
)

# Takes deliveries that are due and makes each due again after the lease. KEYS: due, waiting. ARGV: lease in ms, count.
_TAKE = Script(
    _NOW
    + """
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local delivery = redis.call('HGET', KEYS[2], id)
  if delivery then
    redis.call('ZADD', KEYS[1], now + ARGV[1], id)
    found[#found + 1] = delivery
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return found
"""
)

# Makes a delivery due again later, unless it is gone. KEYS: due, waiting. ARGV: id, delivery, wait in ms, life in s.
_LATER = Script(
    _NOW
    + """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
"""
)

# Writes a webhook if there are fewer than the most allowed. KEYS: targets. ARGV: id, webhook, most, life in s, mark.
_ADD = Script("""
redis.call('HSET', KEYS[1], ARGV[5], '')
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
""")

# Writes the list again if there is none, and returns it. KEYS: targets. ARGV: life in s, then ids and webhooks.
_REFILL = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 and #ARGV > 1 then redis.call('HSET', KEYS[1], unpack(ARGV, 2)) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('HGETALL', KEYS[1])
""")


class Webhook(BaseModel):
    """Where events are sent. secret: signs them, `whsec_` and base64 (Standard Webhooks)."""

    model_config = ConfigDict(frozen=True)

    webhook_id: str
    url: str
    secret: str
    created_at_ms: int


class Delivery(BaseModel):
    """One event for one webhook. attempts: how many were made."""

    model_config = ConfigDict(frozen=True)

    delivery_id: str
    webhook_id: str
    body: str
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class WebhookQueue:
    """Every method raises the errors of Redis."""

    redis: Redis

    async def add(self, webhook: Webhook, most: int) -> bool:
        """Write a webhook; False if there are as many as allowed."""
        args: list[Argument] = [webhook.webhook_id, webhook.model_dump_json(), most, keys.WEBHOOKS_S, _WRITTEN]
        return bool(await self._run(_ADD, [keys.WEBHOOKS], args))

    async def remove(self, webhook_id: str) -> bool:
        """False if there is no such webhook."""
        return bool(await self.redis.hdel(keys.WEBHOOKS, webhook_id))

    async def refill(self, known: Sequence[Webhook]) -> list[Webhook]:
        """All webhooks, oldest first. A Redis without a list gets the known ones."""
        args: list[Argument] = [keys.WEBHOOKS_S]
        if known:
            args += [_WRITTEN, ""]
        for webhook in known:
            args += [webhook.webhook_id, webhook.model_dump_json()]
        flat: list[bytes] = await self._run(_REFILL, [keys.WEBHOOKS], args)
        found = [Webhook.model_validate_json(data) for data in flat[1::2] if data]
        return sorted(found, key=lambda webhook: (webhook.created_at_ms, webhook.webhook_id))

    async def put(self, deliveries: Sequence[Delivery]) -> int:
        """Add deliveries; returns how many were dropped because too many wait."""
        args: list[Argument] = [QUEUE_CAP, keys.DELIVERIES_S]
        for one in deliveries:
            args += [one.delivery_id, one.model_dump_json()]
        return int(await self._run(_PUT, _QUEUE, args))

    async def take(self) -> list[Delivery]:
        """Deliveries that are due, for LEASE_S."""
        found: list[bytes] = await self._run(_TAKE, _QUEUE, [LEASE_S * 1000, _BATCH])
        return [Delivery.model_validate_json(data) for data in found]

    async def later(self, delivery: Delivery, wait_s: float) -> None:
        args: list[Argument] = [delivery.delivery_id, delivery.model_dump_json(), round(wait_s * 1000)]
        await self._run(_LATER, _QUEUE, [*args, keys.DELIVERIES_S])

    async def done(self, delivery_id: str) -> None:
        trip = Trip(self.redis)
        trip.add(lambda pipe: pipe.zrem(keys.WEBHOOKS_DUE, delivery_id))
        trip.add(lambda pipe: pipe.hdel(keys.WEBHOOKS_WAITING, delivery_id))
        await trip.go()

    async def _run(self, script: Script, names: Sequence[str], args: Sequence[Argument]) -> Any:
        trip = Trip(self.redis)
        trip.run(script, names, args)
        return (await trip.go())[0]


_QUEUE = (keys.WEBHOOKS_DUE, keys.WEBHOOKS_WAITING)
