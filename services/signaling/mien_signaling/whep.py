"""WHEP over HTTP (draft-ietf-wish-whep, similar to RFC 9725): POST an offer, PATCH candidates, DELETE to leave.

ICE restarts are not supported, so there is no ETag. A PATCH that asks for an ICE restart gets 422, and its session
continues.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.clock import Clock
from mien_shared.http.limits import RateLimiter, caller_of
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem, describe
from mien_shared.http.tokens import TokenIssuer, bearer_token
from mien_shared.http.turn import ice_servers_for
from mien_shared.settings import IceServer
from mien_shared.spans import span
from mien_signaling.audience import Audience, Full, NoPublication, UnknownSession
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import UnacceptableOffer, UnreadableOffer, parse_offer
from mien_signaling.peer import ClosedWhileAnswering, Gone, ViewerConnection
from mien_signaling.sdp import BadFragment, parse_fragment
from mien_signaling.settings import SignalingSettings

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"

_PREFIX = "/v1/whep/"
_PREFLIGHT_LIFETIME_S = 7200
_ENDPOINT_METHODS = "POST, OPTIONS, HEAD"
_SESSION_METHODS = "PATCH, DELETE, OPTIONS, HEAD"
_COUNTED_METHODS = frozenset({"POST", "PATCH", "DELETE", "OPTIONS", "HEAD", "GET", "PUT"})
_TOKEN = Depends(HTTPBearer(scheme_name="Session token", description="A token that grants watch", auto_error=False))
_ANY_ROUTE = (
    Code.TOKEN_MISSING,
    Code.TOKEN_INVALID,
    Code.TOKEN_NOT_GRANTED,
    Code.NOT_ADMITTED,
    Code.PARTICIPANT_NOT_FOUND,
    Code.BODY_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.TOO_MANY_REQUESTS,
)
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Doorkeeper:
    """Checks requests: authorisation, rate limits and media types."""

    def __init__(self, settings: SignalingSettings, clock: Clock) -> None:
        self._tokens = TokenIssuer.of(settings)
        self._demo_open = settings.demo_open
        self._clock = clock
        self._limiters = {
            "POST": RateLimiter(settings.joins_per_minute),
            "PATCH": RateLimiter(settings.updates_per_minute),
            "DELETE": RateLimiter(settings.updates_per_minute),
        }
        self._session_joins = RateLimiter(settings.session_joins_per_minute)

    def admit(self, request: Request, session_id: str) -> Principal | None:
        """The bearer of the request's token, None in an open demo. Raises Problem 429, 401 or 403.

        What a participant may watch is known when the session's record is.
        """
        now_s = self._clock.monotonic_s()
        self._limiters[request.method].demand(caller_of(request.client.host if request.client else None), now_s)
        if self._demo_open:
            return None
        bearer = self._tokens.bearer(bearer_token(request.headers.get("authorization")))
        if bearer.room is None:
            bearer.demand(session_id, [Grant.WATCH])
        return bearer

    def admit_join(self, session_id: str) -> None:
        """Raises Problem 429 for too many offers to a session.

        Many viewers may share a watch token, and every offer costs a DTLS handshake.
        """
        self._session_joins.demand(session_id, self._clock.monotonic_s(), "session's viewers")

    async def text(self, request: Request, media_type: str, accept_header: str) -> str:
        """The body. Raises Problem 415 for another media type and 400 if it is not UTF-8."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
            raise Problem(Code.WRONG_MEDIA_TYPE, f"the body must be {media_type}", headers={accept_header: media_type})
        try:
            return (await request.body()).decode()
        except UnicodeDecodeError as error:
            raise Problem(Code.UNREADABLE, "the body is not UTF-8") from error


class Whep:
    """The handlers of the WHEP endpoint of every session and of the session URL of every viewer."""

    def __init__(self, audience: Audience, settings: SignalingSettings, clock: Clock) -> None:
        self._audience = audience
        self._doorkeeper = Doorkeeper(settings, clock)
        self._settings = settings
        self._clock = clock

    async def join(self, session_id: str, request: Request) -> Response:
        """Answer an SDP offer. The answer contains all candidates."""
        bearer = self._doorkeeper.admit(request, session_id)
        body = await self._doorkeeper.text(request, SDP, "Accept-Post")
        with joining_problems():
            offer = parse_offer(body)
            if not _SESSION_ID.fullmatch(session_id):
                raise UnknownSession(session_id)
            self._doorkeeper.admit_join(session_id)
            with span("answer an offer"):
                viewer_id, answer = await self._audience.join(session_id, offer, bearer)
        response = Response(answer, status_code=201, media_type=SDP)
        response.headers["Location"] = f"{_PREFIX}{session_id}/{viewer_id}"
        response.headers["Accept-Patch"] = SDP_FRAGMENT
        for server in ice_servers_for(self._settings, session_id, self._clock.unix_s()):
            for link in ice_server_links(server):
                response.headers.append("Link", link)
        return response

    async def trickle(self, session_id: str, viewer_id: str, request: Request) -> Response:
        """Add a viewer's later candidates."""
        bearer = self._doorkeeper.admit(request, session_id)
        viewer = self._find(session_id, viewer_id, bearer)
        # Real players send `*`, which matches any session. An entity tag cannot match, because sessions have none.
        if request.headers.get("if-match", "*").strip() != "*":
            raise Problem(Code.NO_SUCH_ETAG, "this session has no entity tag, because ICE restarts are not supported")
        body = await self._doorkeeper.text(request, SDP_FRAGMENT, "Accept-Patch")
        try:
            fragment = parse_fragment(body)
        except BadFragment as error:
            raise Problem(Code.BAD_FRAGMENT, str(error)) from error
        if viewer.is_restart(fragment):
            raise Problem(Code.ICE_RESTART_UNSUPPORTED, "ICE restarts are not supported; the session goes on")
        await viewer.add(fragment)
        return Response(status_code=204)

    async def leave(self, session_id: str, viewer_id: str, request: Request) -> Response:
        """End a viewer's WHEP session."""
        bearer = self._doorkeeper.admit(request, session_id)
        await self._audience.remove(self._find(session_id, viewer_id, bearer), Gone.LEFT)
        return Response(status_code=200)

    def _find(self, session_id: str, viewer_id: str, bearer: Principal | None) -> ViewerConnection:
        viewer = self._audience.find(session_id, viewer_id)
        if viewer is None:
            if self._audience.was_ended(session_id, viewer_id):
                raise Problem(Code.VIEWER_ENDED, "an operator has ended this viewer's connection")
            raise Problem(Code.VIEWER_NOT_FOUND, "there is no such viewer, or it has left")
        if bearer is not None:
            bearer.demand_session(viewer.broadcast.session, [Grant.WATCH])
        return viewer


def routes(audience: Audience, settings: SignalingSettings, clock: Clock) -> APIRouter:
    """The routes of WHEP's two URLs for every method, including the refused methods."""
    whep = Whep(audience, settings, clock)
    router = APIRouter(tags=["WHEP"])
    endpoint, session = _PREFIX + "{session_id}", _PREFIX + "{session_id}/{viewer_id}"
    router.add_api_route(
        endpoint,
        whep.join,
        methods=["POST"],
        status_code=201,
        response_class=Response,
        dependencies=[_TOKEN],
        openapi_extra=_body(SDP),
        responses={
            201: {"description": "The SDP answer", "content": {SDP: {"schema": {"type": "string"}}}},
            **describe(
                *_ANY_ROUTE,
                Code.UNREADABLE,
                Code.UNREADABLE_OFFER,
                Code.SESSION_NOT_FOUND,
                Code.NO_PUBLICATION,
                Code.WRONG_MEDIA_TYPE,
                Code.UNACCEPTABLE_OFFER,
                Code.FULL,
                Code.VIEWER_CLOSED,
                Code.REDIS_UNAVAILABLE,
            ),
        },
    )
    router.add_api_route(
        session,
        whep.trickle,
        methods=["PATCH"],
        status_code=204,
        response_class=Response,
        dependencies=[_TOKEN],
        openapi_extra=_body(SDP_FRAGMENT),
        responses=describe(
            *_ANY_ROUTE,
            Code.UNREADABLE,
            Code.BAD_FRAGMENT,
            Code.VIEWER_NOT_FOUND,
            Code.VIEWER_ENDED,
            Code.NO_SUCH_ETAG,
            Code.WRONG_MEDIA_TYPE,
            Code.ICE_RESTART_UNSUPPORTED,
        ),
    )
    router.add_api_route(
        session,
        whep.leave,
        methods=["DELETE"],
        response_class=Response,
        dependencies=[_TOKEN],
        responses=describe(*_ANY_ROUTE, Code.VIEWER_NOT_FOUND, Code.VIEWER_ENDED),
    )
    for path, methods, headers in (
        (endpoint, _ENDPOINT_METHODS, {"Accept-Post": SDP}),
        (session, _SESSION_METHODS, {"Accept-Patch": SDP_FRAGMENT}),
    ):
        allowed = {"Allow": methods, **headers}
        router.add_api_route(path, _constant(204, allowed), methods=["OPTIONS"], include_in_schema=False)
        router.add_api_route(path, _constant(200, allowed), methods=["HEAD"], include_in_schema=False)
        others = sorted({"GET", "PUT", "POST", "PATCH", "DELETE"} - set(methods.split(", ")))
        router.add_api_route(path, _not_allowed(methods), methods=others, include_in_schema=False)
    return router


def _body(media_type: str) -> dict[str, Any]:
    """OpenAPI's description of a text body of this media type."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


@contextmanager
def joining_problems() -> Iterator[None]:
    """Turn the errors of a join into problems."""
    try:
        yield
    except UnreadableOffer as error:
        raise Problem(Code.UNREADABLE_OFFER, str(error)) from error
    except UnacceptableOffer as error:
        raise Problem(Code.UNACCEPTABLE_OFFER, str(error)) from error
    except UnknownSession as error:
        raise Problem(Code.SESSION_NOT_FOUND, "there is no such session, or it has ended") from error
    except NoPublication as error:
        raise Problem(Code.NO_PUBLICATION, "the session has no video at the moment") from error
    except ClosedWhileAnswering as error:
        raise Problem(Code.VIEWER_CLOSED, "the connection was closed while its offer was answered") from error
    except Full as error:
        raise Problem(Code.FULL, f"{error} has as many viewers as allowed") from error
    except BUS_ERRORS as error:
        raise Problem(Code.REDIS_UNAVAILABLE, "the session registry does not answer") from error


def ice_server_links(server: IceServer) -> list[str]:
    """One Link header value for each URL (RFC 9725, section 4.6)."""
    attributes = 'rel="ice-server"'
    if server.username is not None and server.credential is not None:
        username, credential = _quoted(server.username), _quoted(server.credential)
        attributes += f'; username={username}; credential={credential}; credential-type="password"'
    return [f"<{url}>; {attributes}" for url in server.urls]


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110, section 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _constant(status: int, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(status_code=status, headers=headers)

    return answer


def _not_allowed(methods: str) -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise Problem(Code.METHOD_NOT_ALLOWED, f"this URL takes only {methods}", headers={"Allow": methods})

    return refuse


class CrossOrigin:
    """Adds CORS headers (Fetch, section 3.2) to every answer of WHEP, including errors, and counts the answers."""

    def __init__(self, app: ASGIApp, origins: list[str], metrics: SignalingMetrics) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        origin = asked.get(b"origin", b"").decode("latin-1")
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in asked

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _COUNTED_METHODS else "other"
                self._metrics.whep_request(method, message["status"])
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if origin in self._origins:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Accept-Patch, Retry-After"
                    if is_preflight:
                        headers["Access-Control-Allow-Methods"] = "POST, PATCH, DELETE, OPTIONS"
                        headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-Match"
                        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_LIFETIME_S)
            await send(message)

        await self._app(scope, receive, send_with_headers)
