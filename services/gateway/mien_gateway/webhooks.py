"""Webhooks: which events are sent, when a failed delivery is tried again, and the loops that do it."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from mien_gateway import webhook_sender
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.settings import GatewaySettings
from mien_gateway.webhook_queue import Delivery, Webhook, WebhookQueue
from mien_shared.clock import Clock
from mien_shared.http.problems import Code, Problem

logger = logging.getLogger(__name__)

#: How often a gateway looks for deliveries that are due, and reads the list of webhooks.
INTERVAL_S = 1.0
_AT_ONCE = 8
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 600.0
#: The last attempt is made about 25 minutes after the first.
MAX_ATTEMPTS = 12


class WebhookEvent(StrEnum):
    """What webhooks are told."""

    ROOM_STARTED = "room_started"
    PARTICIPANT_JOINED = "participant_joined"
    PARTICIPANT_LEFT = "participant_left"
    ROOM_FINISHED = "room_finished"


class WebhookResult(StrEnum):
    """What became of an attempt, or of a delivery."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    GAVE_UP = "gave_up"
    DROPPED = "dropped"  # too many deliveries waited, or Redis failed


def wait_s(attempts: int) -> float:
    """How long to wait after so many attempts: a second, doubled each time, at most ten minutes."""
    return min(_FIRST_WAIT_S * 2.0 ** (attempts - 1), _LONGEST_WAIT_S)


def body_of(event: WebhookEvent, now_unix_s: float, data: dict[str, Any]) -> str:
    """The JSON that a receiver gets."""
    at = datetime.fromtimestamp(now_unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event, "timestamp": at, "data": data}, separators=(",", ":"))


@dataclass
class Webhooks:
    """The webhooks of all gateways. `push` never waits for a receiver."""

    queue: WebhookQueue
    settings: GatewaySettings
    metrics: GatewayMetrics
    clock: Clock
    _known: Sequence[Webhook] = ()

    async def create(self, url: str) -> Webhook:
        """Raises Problem or an error of Redis."""
        try:
            target = webhook_sender.target_of(url, self.settings.webhook_private)
            async with asyncio.timeout(webhook_sender.TIMEOUT_S):
                await webhook_sender.checked_address(target, self.settings.webhook_private)
        except webhook_sender.BadWebhookUrl as error:
            raise Problem(Code.WEBHOOK_REFUSED, str(error)) from error
        except (OSError, UnicodeError) as error:  # TimeoutError too
            raise Problem(Code.WEBHOOK_REFUSED, "the name of the URL's host cannot be resolved") from error
        webhook = Webhook(
            webhook_id=secrets.token_urlsafe(12),
            url=url,
            secret=webhook_sender.new_secret(),
            created_at_ms=int(self.clock.unix_s() * 1000),
        )
        if not await self.queue.add(webhook, self.settings.max_webhooks):
            raise Problem(Code.WEBHOOK_LIMIT, f"there are {self.settings.max_webhooks} webhooks; delete one first")
        return webhook

    async def listed(self) -> list[Webhook]:
        """All webhooks; raises the errors of Redis."""
        self._known = found = await self.queue.refill(self._known)
        return found

    async def delete(self, webhook_id: str) -> None:
        """Raises Problem or an error of Redis. Deliveries that wait are dropped."""
        if not await self.queue.remove(webhook_id):
            raise Problem(Code.WEBHOOK_NOT_FOUND, "there is no webhook with this id")

    async def push(self, events: Sequence[tuple[WebhookEvent, dict[str, Any]]]) -> None:
        """Queue events for every webhook; raises the errors of Redis."""
        webhooks = await self.listed() if events else []
        if not webhooks:
            return
        now_unix_s = self.clock.unix_s()
        deliveries = []
        for event, data in events:
            name, body = f"evt_{secrets.token_hex(12)}", body_of(event, now_unix_s, data)
            for webhook in webhooks:
                delivery_id = f"{name}_{webhook.webhook_id}"
                deliveries.append(Delivery(delivery_id=delivery_id, webhook_id=webhook.webhook_id, body=body))
        if dropped := await self.queue.put(deliveries):
            self.metrics.webhook(WebhookResult.DROPPED, dropped)

    async def step(self) -> None:
        """Make the attempts that are due; raises the errors of Redis."""
        known = {webhook.webhook_id: webhook for webhook in await self.listed()}
        while due := await self.queue.take():
            slots = asyncio.Semaphore(_AT_ONCE)
            attempts = (self._attempt(delivery, known.get(delivery.webhook_id), slots) for delivery in due)
            for failure in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(failure, BaseException):
                    raise failure  # of Redis: what is not removed is due again after its lease

    async def _attempt(self, delivery: Delivery, webhook: Webhook | None, slots: asyncio.Semaphore) -> None:
        async with slots:
            if webhook is None:  # it was deleted
                await self.queue.done(delivery.delivery_id)
                return
            tried = delivery.model_copy(update={"attempts": delivery.attempts + 1})
            try:
                await self._send(tried, webhook)
            except (webhook_sender.DeliveryFailed, webhook_sender.BadWebhookUrl, UnicodeError) as error:
                await self._failed(tried, error)
                return
            self.metrics.webhook(WebhookResult.DELIVERED)
            await self.queue.done(delivery.delivery_id)

    async def _send(self, delivery: Delivery, webhook: Webhook) -> None:
        private = self.settings.webhook_private
        target, body = webhook_sender.target_of(webhook.url, private), delivery.body.encode()
        now_s = int(self.clock.unix_s())
        request = webhook_sender.request_bytes(target, webhook.secret, delivery.delivery_id, now_s, body)
        await webhook_sender.send(target, request, private)

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        extra = {"webhook": delivery.webhook_id, "attempts": delivery.attempts, "error": str(error)}
        if delivery.attempts >= MAX_ATTEMPTS:
            logger.warning("a webhook was not delivered", extra=extra)
            self.metrics.webhook(WebhookResult.GAVE_UP)
            await self.queue.done(delivery.delivery_id)
        else:
            logger.info("a webhook's attempt failed", extra=extra)
            self.metrics.webhook(WebhookResult.RETRIED)
            await self.queue.later(delivery, wait_s(delivery.attempts))
