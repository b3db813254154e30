"""What WHEP and WHIP have in common over HTTP (RFC 9725): POST an offer, PATCH candidates, DELETE to leave.

ICE restarts are not supported, so there is no ETag. A PATCH that asks for an ICE restart gets 422, and its session
continues.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.clock import Clock
from mien_shared.http.limits import RateLimiter, caller_of
from mien_shared.http.principal import Grant, Principal
from mien_shared.http.problems import Code, Problem, describe
from mien_shared.http.tokens import TokenIssuer, bearer_token
from mien_shared.http.turn import ice_servers_for
from mien_shared.settings import IceServer
from mien_signaling.audience import Full
from mien_signaling.broadcasts import NoPublication, UnknownSession
from mien_signaling.offer_parts import UnacceptableOffer, UnreadableOffer
from mien_signaling.peer_session import ClosedWhileAnswering, PeerSession
from mien_signaling.sdp import BadFragment, parse_fragment
from mien_signaling.settings import SignalingSettings

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"

_ENDPOINT_METHODS = "POST, OPTIONS, HEAD"
_SESSION_METHODS = "PATCH, DELETE, OPTIONS, HEAD"
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
_OFFER_PROBLEMS = (Code.UNREADABLE, Code.UNREADABLE_OFFER, Code.WRONG_MEDIA_TYPE, Code.UNACCEPTABLE_OFFER)
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Doorkeeper:
    """Checks requests: authorisation, rate limits and media types."""

    def __init__(self, settings: SignalingSettings, clock: Clock, grant: Grant, is_open: bool) -> None:
        """grant: what a token must allow. is_open: whether callers need none."""
        self._tokens = TokenIssuer.of(settings)
        self._grant = grant
        self._is_open = is_open
        self._clock = clock
        self._limiters = {
            "POST": RateLimiter(settings.joins_per_minute),
            "PATCH": RateLimiter(settings.updates_per_minute),
            "DELETE": RateLimiter(settings.updates_per_minute),
        }
        self._session_joins = RateLimiter(settings.session_joins_per_minute)

    def admit(self, request: Request, session_id: str) -> Principal | None:
        """The bearer of the request's token, None where none is needed. Raises Problem 429, 401 or 403.

        What a participant may do is known when the session's record is.
        """
        now_s = self._clock.monotonic_s()
        self._limiters[request.method].demand(caller_of(request.client.host if request.client else None), now_s)
        if self._is_open:
            return None
        bearer = self._tokens.bearer(bearer_token(request.headers.get("authorization")))
        if bearer.room is None:
            bearer.demand(session_id, [self._grant])
        return bearer

    def admit_join(self, session_id: str) -> None:
        """Raises Problem 429 for too many offers to a session.

        Many callers may share a token, and every offer costs a DTLS handshake.
        """
        self._session_joins.demand(session_id, self._clock.monotonic_s(), "session's clients")

    async def text(self, request: Request, media_type: str, accept_header: str) -> str:
        """The body. Raises Problem 415 for another media type and 400 if it is not UTF-8."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
            raise Problem(Code.WRONG_MEDIA_TYPE, f"the body must be {media_type}", headers={accept_header: media_type})
        try:
            return (await request.body()).decode()
        except UnicodeDecodeError as error:
            raise Problem(Code.UNREADABLE, "the body is not UTF-8") from error


class SdpEndpoint(ABC):
    """The handlers of one protocol: the endpoint of every session, and the session URL of every connection.

    prefix: of its paths, with the slash.
    """

    def __init__(self, prefix: str, settings: SignalingSettings, clock: Clock, doorkeeper: Doorkeeper) -> None:
        self.prefix = prefix
        self._settings = settings
        self._clock = clock
        self._doorkeeper = doorkeeper

    @abstractmethod
    async def _join(self, session_id: str, offer: str, bearer: Principal | None) -> tuple[str, str]:
        """Check and answer an offer; the id of the new connection and our answer. Raises what `joining_problems` knows.

        Call `_checked` between the check of the offer and the answer.
        """

    @abstractmethod
    def _find(self, session_id: str, connection_id: str, bearer: Principal | None) -> PeerSession:
        """A connection of this session, if the bearer may name it. Raises Problem."""

    @abstractmethod
    async def _leave(self, connection: PeerSession) -> None:
        """End a connection."""

    def _checked(self, session_id: str) -> None:
        """Raises UnknownSession or Problem 429 for a session that cannot be joined."""
        if not _SESSION_ID.fullmatch(session_id):
            raise UnknownSession(session_id)
        self._doorkeeper.admit_join(session_id)

    async def join(self, session_id: str, request: Request) -> Response:
        """Answer an SDP offer. The answer contains all candidates."""
        bearer = self._doorkeeper.admit(request, session_id)
        body = await self._doorkeeper.text(request, SDP, "Accept-Post")
        with joining_problems():
            connection_id, answer = await self._join(session_id, body, bearer)
        response = Response(answer, status_code=201, media_type=SDP)
        response.headers["Location"] = f"{self.prefix}{session_id}/{connection_id}"
        response.headers["Accept-Patch"] = SDP_FRAGMENT
        for server in ice_servers_for(self._settings, session_id, self._clock.unix_s()):
            for link in ice_server_links(server):
                response.headers.append("Link", link)
        return response

    async def trickle(self, session_id: str, connection_id: str, request: Request) -> Response:
        """Add later candidates of a client."""
        bearer = self._doorkeeper.admit(request, session_id)
        connection = self._find(session_id, connection_id, bearer)
        # Real clients send `*`, which matches any session. An entity tag cannot match, because sessions have none.
        if request.headers.get("if-match", "*").strip() != "*":
            raise Problem(Code.NO_SUCH_ETAG, "this session has no entity tag, because ICE restarts are not supported")
        body = await self._doorkeeper.text(request, SDP_FRAGMENT, "Accept-Patch")
        try:
            fragment = parse_fragment(body)
        except BadFragment as error:
            raise Problem(Code.BAD_FRAGMENT, str(error)) from error
        if connection.is_restart(fragment):
            raise Problem(Code.ICE_RESTART_UNSUPPORTED, "ICE restarts are not supported; the session goes on")
        await connection.add(fragment)
        return Response(status_code=204)

    async def leave(self, session_id: str, connection_id: str, request: Request) -> Response:
        """End a connection."""
        bearer = self._doorkeeper.admit(request, session_id)
        await self._leave(self._find(session_id, connection_id, bearer))
        return Response(status_code=200)


class RoomEndpoint(SdpEndpoint):
    """The handlers of one protocol for rooms: what a session's id is to the others is here the room's."""

    async def join_room(self, room_id: str, request: Request) -> Response:
        """Answer an SDP offer of a participant of the room. The answer contains all candidates."""
        return await self.join(room_id, request)

    async def trickle_in_room(self, room_id: str, connection_id: str, request: Request) -> Response:
        """Add later candidates of a participant's client."""
        return await self.trickle(room_id, connection_id, request)

    async def leave_room(self, room_id: str, connection_id: str, request: Request) -> Response:
        """End a participant's connection."""
        return await self.leave(room_id, connection_id, request)


def routes_of(
    one: SdpEndpoint, tag: str, grant: Grant, joining: tuple[Code, ...], finding: tuple[Code, ...]
) -> APIRouter:
    """The routes of a protocol's two URLs for every method, including the refused methods.

    joining, finding: problems that only this protocol has, when a client joins and when its connection is named.
    """
    handlers = _Handlers(one.prefix + "{session_id}", one.join, one.trickle, one.leave)
    return _routes(handlers, "Session token", tag, grant, (Code.SESSION_NOT_FOUND, *joining), finding)


def room_routes_of(
    one: RoomEndpoint,
    tag: str,
    grant: Grant,
    joining: tuple[Code, ...],
    finding: tuple[Code, ...],
    more: Callable[..., Awaitable[Response]] | None = None,
) -> APIRouter:
    """The same for the URLs of rooms. more: takes another offer at the URL of a connection, None if there is none."""
    handlers = _Handlers(one.prefix + "{room_id}", one.join_room, one.trickle_in_room, one.leave_room, more)
    return _routes(handlers, "Participant's token", tag, grant, (Code.SESSION_NOT_FOUND, *joining), finding)


@dataclass(frozen=True, slots=True)
class _Handlers:
    path: str
    join: Callable[..., Awaitable[Response]]
    trickle: Callable[..., Awaitable[Response]]
    leave: Callable[..., Awaitable[Response]]
    more: Callable[..., Awaitable[Response]] | None = None


def _routes(
    one: _Handlers, scheme: str, tag: str, grant: Grant, joining: tuple[Code, ...], finding: tuple[Code, ...]
) -> APIRouter:
    token = Depends(HTTPBearer(scheme_name=scheme, description=f"A token that grants {grant}", auto_error=False))
    router = APIRouter(tags=[tag])
    endpoint, session = one.path, one.path + "/{connection_id}"
    session_methods = _SESSION_METHODS if one.more is None else f"POST, {_SESSION_METHODS}"
    router.add_api_route(
        endpoint,
        one.join,
        methods=["POST"],
        status_code=201,
        response_class=Response,
        dependencies=[token],
        openapi_extra=_body(SDP),
        responses={
            201: {"description": "The SDP answer", "content": {SDP: {"schema": {"type": "string"}}}},
            **describe(
                *_ANY_ROUTE,
                *_OFFER_PROBLEMS,
                Code.FULL,
                Code.REDIS_UNAVAILABLE,
                *joining,
            ),
        },
    )
    if one.more is not None:
        router.add_api_route(
            session,
            one.more,
            methods=["POST"],
            response_class=Response,
            dependencies=[token],
            openapi_extra=_body(SDP),
            responses={
                200: {"description": "The SDP answer", "content": {SDP: {"schema": {"type": "string"}}}},
                **describe(*_ANY_ROUTE, *_OFFER_PROBLEMS, *joining, *finding),
            },
        )
    router.add_api_route(
        session,
        one.trickle,
        methods=["PATCH"],
        status_code=204,
        response_class=Response,
        dependencies=[token],
        openapi_extra=_body(SDP_FRAGMENT),
        responses=describe(
            *_ANY_ROUTE,
            Code.UNREADABLE,
            Code.BAD_FRAGMENT,
            *finding,
            Code.NO_SUCH_ETAG,
            Code.WRONG_MEDIA_TYPE,
            Code.ICE_RESTART_UNSUPPORTED,
        ),
    )
    router.add_api_route(
        session,
        one.leave,
        methods=["DELETE"],
        response_class=Response,
        dependencies=[token],
        responses=describe(*_ANY_ROUTE, *finding),
    )
    for path, methods, headers in (
        (endpoint, _ENDPOINT_METHODS, {"Accept-Post": SDP}),
        (session, session_methods, {"Accept-Patch": SDP_FRAGMENT}),
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
        raise Problem(Code.FULL, str(error)) from error
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
