"""Everybody who may knock at a service's routes, and a list of those routes."""

from __future__ import annotations

import time
from collections.abc import Iterable

import jwt
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute, Mount, Route

from mien_shared.http.principal import Grant
from mien_shared.http.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    LEEWAY_S,
    SPEAKER_GRANTS,
    VIEWER_GRANTS,
    TokenIssuer,
    key_id,
)

SESSION_ID, OTHER_SESSION_ID = "one", "another"


def callers(secret: str, api_key: str) -> dict[str, str | None]:
    """What each caller's Authorization header says. Only the first four were ever given anything here."""
    issuer = TokenIssuer(secret)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SESSION_ID, "iat": now, "exp": now + 60, "grants": sorted(Grant)}
    key = {"kid": key_id(secret)}
    long_ago = now - 3600 - LEEWAY_S
    tokens: dict[str, str] = {
        "operator": api_key,
        "speaker": issuer.issue(SESSION_ID, SPEAKER_GRANTS),
        "viewer": issuer.issue(SESSION_ID, VIEWER_GRANTS),
        "feeder": issuer.issue(SESSION_ID, {Grant.PUBLISH}),
        "other speaker": issuer.issue(OTHER_SESSION_ID, SPEAKER_GRANTS),
        "nothing granted": issuer.issue(SESSION_ID, set()),
        "expired": issuer.issue(SESSION_ID, SPEAKER_GRANTS, 60, long_ago),
        "forger": TokenIssuer("somebody else's secret of thirty-two bytes").issue(SESSION_ID, SPEAKER_GRANTS),
        "other audience": jwt.encode(claims | {"aud": "mien-other"}, secret, ALGORITHM, key),
        "other issuer": jwt.encode(claims | {"iss": "other"}, secret, ALGORITHM, key),
        "unsigned": jwt.encode(claims, "", "none", key),
        "wrong key": api_key[:-1] + "?",
        "garbage": "garbage",
    }
    headers: dict[str, str | None] = {name: f"Bearer {token}" for name, token in tokens.items()}
    return headers | {"nobody": None, "basic": "Basic b3BlcmF0b3I6b3BlcmF0b3I="}


def routes_of(app: FastAPI | APIRouter) -> set[tuple[str, str]]:
    """(method, path) of everything that an application answers; "WS" for WebSockets, "MOUNT" for what is mounted."""
    return {entry for route in app.routes for entry in _entries(route)}


def _entries(route: BaseRoute) -> Iterable[tuple[str, str]]:
    included = getattr(route, "original_router", None)  # FastAPI keeps a router that was included as it is
    if isinstance(included, APIRouter):
        return routes_of(included)
    match route:
        case APIWebSocketRoute():
            return [("WS", route.path)]
        case APIRoute() | Route():
            return [(method, route.path) for method in route.methods or ()]
        case Mount():
            return [("MOUNT", route.path)]
    raise TypeError(f"a kind of route that this test does not know: {route}")


def now_ms() -> int:
    """A creation time for sessions that have not reached the longest duration."""
    return int(time.time() * 1000)
