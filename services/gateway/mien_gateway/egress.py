"""The routes of the REST API for a session's egress: operators order that it is published to the SFU.

The SFU's address is a setting of signaling (MIEN_SFU_WHIP_URL). No caller can name one.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, Gate
from mien_gateway.sessions import Here, Sessions
from mien_shared.bus.egress import EgressError, Egresses, EgressOrder
from mien_shared.http.problems import Code, Problem, describe, redis_problems


class NewEgress(BaseModel):
    """An order. stream_key: replaces {stream_key} in the URL and the bearer of the operator's SFU."""

    stream_key: str | None = Field(None, min_length=1, max_length=1024, pattern=r"^[A-Za-z0-9._~-]+$")


class EgressView(BaseModel):
    """What is known of a session's egress. `waiting`: no signaling service has taken it yet."""

    ordered: bool = Field(description="False where all sessions are published, and no operator has asked for this one")
    state: Literal["waiting", "connecting", "connected", "retrying"]
    since_ms: int | None = Field(None, description="Unix time at which this state began")
    failures: int = Field(0, description="Failed attempts since it was last connected for half a minute")
    error: EgressError | None = Field(None, description="Why the newest attempt or connection ended")
    status: int | None = Field(None, description="The SFU's HTTP status, if it refused the newest attempt")
    loss_ratio: float | None = Field(None, description="Share of packets lost, 0 to 1, in the SFU's newest report")
    rtt_ms: float | None = Field(None, description="Round-trip time to the SFU by its newest report")


router = APIRouter(prefix="/v1/sessions/{session_id}/egress", tags=["sessions"], dependencies=[COUNTED, API_KEY])

_PROBLEMS = (*ANY_ROUTE, *KEY_PROBLEMS, Code.SESSION_NOT_FOUND, Code.REDIS_UNAVAILABLE)


@router.post("", status_code=202, responses=describe(*_PROBLEMS, Code.BAD_REQUEST, Code.NO_SFU))
async def order(
    session_id: str, request: Request, sessions: Here, gate: Gate, wanted: NewEgress | None = None
) -> EgressView:
    """Publish a session's picture and voice to the SFU until the session ends. For operators.

    The SFU is the one of signaling's settings. A second order replaces the first; with another stream key the session
    is published anew.
    """
    by = gate.operator(request)
    egresses = Egresses(sessions.registry.redis)
    async with redis_problems():
        await sessions.find(session_id)
        if not await egresses.has_sfu():
            raise Problem(Code.NO_SFU, "no signaling service has MIEN_SFU_WHIP_URL, so there is no SFU to publish to")
        await egresses.order(
            session_id, EgressOrder(wanted=True, stream_key=None if wanted is None else wanted.stream_key)
        )
        audit.egress_ordered(by, session_id)
        return await _view(sessions, session_id)


@router.get("", responses=describe(*_PROBLEMS, Code.NO_EGRESS))
async def read(session_id: str, request: Request, sessions: Here, gate: Gate) -> EgressView:
    """Whether a session's picture and voice reach the SFU. For operators."""
    gate.operator(request)
    async with redis_problems():
        await sessions.find(session_id)
        return await _view(sessions, session_id)


@router.delete("", status_code=204, responses=describe(*_PROBLEMS, Code.NO_EGRESS))
async def withdraw(session_id: str, request: Request, sessions: Here, gate: Gate) -> None:
    """End a session's egress within two seconds. For operators.

    Where signaling publishes all sessions, this one is left out until it is ordered again.
    """
    by = gate.operator(request)
    async with redis_problems():
        await sessions.find(session_id)
        await _view(sessions, session_id)
        await Egresses(sessions.registry.redis).order(session_id, EgressOrder(wanted=False))
    audit.egress_withdrawn(by, session_id)


async def _view(sessions: Sessions, session_id: str) -> EgressView:
    """Raises Problem, or an error of Redis."""
    order, state = await Egresses(sessions.registry.redis).of_session(session_id)
    if (order is None and state is None) or (order is not None and not order.wanted):
        raise Problem(Code.NO_EGRESS, "no egress of this session is ordered, and none is in progress")
    ordered = order is not None
    return (
        EgressView(ordered=ordered, state="waiting")
        if state is None
        else EgressView(ordered=ordered, **state.model_dump())
    )
