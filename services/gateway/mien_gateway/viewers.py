"""The routes of the REST API for a session's viewers: operators list and end them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from mien_gateway import audit
from mien_gateway.access import ANY_ROUTE, API_KEY, COUNTED, KEY_PROBLEMS, Gate
from mien_gateway.sessions import Here
from mien_shared.bus.messages import ViewerState
from mien_shared.http.problems import Code, Problem, describe, redis_problems


class ViewerList(BaseModel):
    viewers: list[ViewerState]


router = APIRouter(prefix="/v1/sessions/{session_id}/viewers", tags=["sessions"], dependencies=[COUNTED, API_KEY])


@router.get("", responses=describe(*ANY_ROUTE, *KEY_PROBLEMS, Code.SESSION_NOT_FOUND, Code.REDIS_UNAVAILABLE))
async def read_all(session_id: str, request: Request, sessions: Here, gate: Gate) -> ViewerList:
    """Who watches a session at the moment; the viewer that joined first comes first. For operators."""
    gate.operator(request)
    async with redis_problems():
        await sessions.find(session_id)
        return ViewerList(viewers=await sessions.viewers.of_session(session_id))


@router.delete(
    "/{viewer_id}",
    status_code=204,
    responses=describe(
        *ANY_ROUTE, *KEY_PROBLEMS, Code.SESSION_NOT_FOUND, Code.VIEWER_NOT_FOUND, Code.REDIS_UNAVAILABLE
    ),
)
async def delete(session_id: str, viewer_id: str, request: Request, sessions: Here, gate: Gate) -> None:
    """End one viewer's connection within a second. For operators; 404 after it has ended.

    The viewer's token stays valid, so the viewer can join again.
    """
    by = gate.operator(request)
    async with redis_problems():
        await sessions.find(session_id)
        if all(viewer.viewer_id != viewer_id for viewer in await sessions.viewers.of_session(session_id)):
            raise Problem(Code.VIEWER_NOT_FOUND, "the session has no such viewer, or the viewer has left")
        await sessions.viewers.end(session_id, viewer_id)
    audit.viewer_ended(by, session_id, viewer_id)
