"""The routes of the REST API for webhooks. All are for operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, Gate
from mien_gateway.webhook_queue import Webhook
from mien_gateway.webhooks import Webhooks
from mien_shared.http.problems import Code, describe, redis_problems


class NewWebhook(BaseModel):
    url: str = Field(max_length=1000, description="https only, unless the deployment allows private addresses")


class WebhookView(BaseModel):
    webhook_id: str
    url: str
    created_at_ms: int


class CreatedWebhook(WebhookView):
    """`secret` signs the requests, in the form of Standard Webhooks. It is shown only now."""

    secret: str


class WebhookList(BaseModel):
    webhooks: list[WebhookView]


def _webhooks(request: Request) -> Webhooks:
    webhooks: Webhooks = request.app.state.webhooks
    return webhooks


Here = Annotated[Webhooks, Depends(_webhooks)]

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], dependencies=[COUNTED, API_KEY])


@router.post(
    "",
    status_code=201,
    responses=describe(
        *ANY_ROUTE, *KEY_PROBLEMS, Code.BAD_REQUEST, Code.WEBHOOK_REFUSED, Code.WEBHOOK_LIMIT, Code.REDIS_UNAVAILABLE
    ),
)
async def create(new: NewWebhook, request: Request, response: Response, webhooks: Here, gate: Gate) -> CreatedWebhook:
    """Send the events of all rooms to a URL: room_started, participant_joined, participant_left, room_finished."""
    by = gate.new_session(request)
    async with redis_problems():
        webhook = await webhooks.create(new.url)
    audit.webhook_created(by, webhook.webhook_id)
    response.headers["Location"] = f"/v1/webhooks/{webhook.webhook_id}"
    return CreatedWebhook(**_view(webhook).model_dump(), secret=webhook.secret)


@router.get("", responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.REDIS_UNAVAILABLE))
async def read_all(request: Request, webhooks: Here, gate: Gate) -> WebhookList:
    """All webhooks, oldest first, without their secrets."""
    gate.operator(request)
    async with redis_problems():
        return WebhookList(webhooks=[_view(webhook) for webhook in await webhooks.listed()])


@router.delete(
    "/{webhook_id}",
    status_code=204,
    responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.WEBHOOK_NOT_FOUND, Code.REDIS_UNAVAILABLE),
)
async def delete(webhook_id: str, request: Request, webhooks: Here, gate: Gate) -> None:
    """Stop sending to a webhook. Deliveries that wait are dropped."""
    by = gate.operator(request)
    async with redis_problems():
        await webhooks.delete(webhook_id)
    audit.webhook_deleted(by, webhook_id)


def _view(webhook: Webhook) -> WebhookView:
    return WebhookView(webhook_id=webhook.webhook_id, url=webhook.url, created_at_ms=webhook.created_at_ms)
