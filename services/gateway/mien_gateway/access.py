"""Authorisation and rate limits. Missing or wrong credentials are answered with 401 or 403, too many requests with 429.

An operator's API key and a token come in the same header, `Authorization: Bearer`. A key creates, lists, watches and
ends sessions and rooms. A session's token sends motion to, watches or ends the one session that it names. A
participant's token is for its room: what it may do with a session is known when the session's record is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from mien_gateway.api_keys import ApiKeys
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.settings import GatewaySettings
from mien_shared.bus.messages import SessionRecord
from mien_shared.clock import Clock
from mien_shared.http.limits import RateLimiter, caller_of
from mien_shared.http.principal import Grant, Principal, Role
from mien_shared.http.problems import Code, Problem
from mien_shared.http.tokens import TokenError, TokenIssuer, bearer_token

#: How OpenAPI names the two kinds of bearer.
API_KEY = Depends(HTTPBearer(scheme_name="API key", description="An operator's key (MIEN_API_KEYS)", auto_error=False))
TOKEN = Depends(HTTPBearer(scheme_name="Session token", description="From POST /v1/sessions", auto_error=False))
PARTICIPANT = Depends(
    HTTPBearer(scheme_name="Participant token", description="From POST /v1/rooms/…/participants", auto_error=False)
)

#: The problems that any route may answer with.
ANY_ROUTE = (
    Code.BODY_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.FOREIGN_ORIGIN,
    Code.INVALID_REQUEST,
    Code.MISDIRECTED_REQUEST,
    Code.TOO_MANY_REQUESTS,
)
KEY_PROBLEMS = (Code.API_KEY_MISSING, Code.API_KEY_INVALID)
TOKEN_PROBLEMS = (Code.TOKEN_MISSING, Code.TOKEN_INVALID, Code.TOKEN_NOT_GRANTED)


class Access:
    """Raises a Problem for a caller that is not authorised or exceeds a rate limit."""

    def __init__(self, settings: GatewaySettings, tokens: TokenIssuer, metrics: GatewayMetrics, clock: Clock) -> None:
        self._keys = ApiKeys.of(key.get_secret_value() for key in settings.api_keys)
        self._tokens = tokens
        self._demo_open = settings.demo_open
        self._metrics = metrics
        self._clock = clock
        self._requests = RateLimiter(settings.requests_per_minute)
        self._sessions = RateLimiter(settings.sessions_per_minute)
        self._uploads = RateLimiter(settings.uploads_per_minute)
        self._participant_uploads = RateLimiter(settings.participant_uploads_per_minute)

    def request(self, caller: HTTPConnection) -> None:
        """Count a request towards the limit of its address."""
        self._limit(self._requests, caller, Principal.anyone())

    def new_session(self, caller: HTTPConnection) -> Principal:
        """Demand an operator, and count the new session for its key and its address."""
        return self._limit(self._sessions, caller, self.operator(caller))

    def upload(self, caller: HTTPConnection) -> Principal:
        """Demand an operator or a participant, and count the upload for its key or token and its address."""
        principal = self._limit(self._uploads, caller, self.avatar_user(caller))
        if principal.room is not None:
            with self._counting():
                name = f"participant {principal.room} {principal.scope}"
                self._participant_uploads.demand(name, self._clock.monotonic_s(), "participant")
        return principal

    def avatar_user(self, caller: HTTPConnection) -> Principal:
        """Demand an operator, a participant that may publish, or any caller if the deployment is open."""
        token = _bearer_of(caller)
        if token is not None and self._keys.owner(token) is None:
            with suppress(TokenError):
                principal = self._tokens.read(token)
                if principal.room is not None:
                    if Grant.PUBLISH not in principal.grants:
                        raise self.not_granted("the token does not grant publish")
                    return principal
        return self.operator(caller)

    def operator(self, caller: HTTPConnection) -> Principal:
        """Demand the bearer of an API key, or any caller if the deployment is open."""
        key = _bearer_of(caller)
        if (principal := self._operator(key)) is not None:
            return principal
        if key is None:
            raise self._refused(Problem(Code.API_KEY_MISSING, "this call needs an operator's API key as a bearer"))
        raise self._refused(Problem(Code.API_KEY_INVALID, "the bearer is not an API key of this deployment"))

    def speaker(self, session_id: str, token: str | None) -> Principal:
        """Demand a token that may send motion to this session, in open deployments too. An API key is not enough.

        For a participant's token call `session` too, as soon as the session's record is known.
        """
        with self._counting():
            principal = self._tokens.bearer(token)
            if principal.room is None:
                principal.demand(session_id, [Grant.PUBLISH])
            return principal

    def session(self, principal: Principal, session: SessionRecord, any_of: Collection[Grant]) -> None:
        """Demand one of these grants for a session whose record is known."""
        with self._counting():
            principal.demand_session(session, any_of)

    def participant(self, room_id: str, token: str | None) -> Principal:
        """Demand the token of a participant of this room, in open deployments too."""
        with self._counting():
            principal = self._tokens.bearer(token)
            if principal.room != room_id:
                raise Problem(Code.TOKEN_NOT_GRANTED, "the token is not for this room")
            return principal

    def in_room(self, caller: HTTPConnection, room_id: str) -> Principal:
        """Demand an operator, a participant of this room, or any caller without a token if the deployment is open."""
        token = _bearer_of(caller)
        principal = self._operator(token)
        if principal is None or (principal.role is Role.ANYONE and token is not None):
            return self.participant(room_id, token)
        return principal

    def not_admitted(self) -> Problem:
        return self._refused(Problem(Code.NOT_ADMITTED, "a moderator has not let this participant in yet"))

    def not_granted(self, detail: str) -> Problem:
        return self._refused(Problem(Code.TOKEN_NOT_GRANTED, detail))

    def end_session(self, caller: HTTPConnection, session_id: str) -> Principal:
        """Demand the speaker's token or an operator's key."""
        with self._counting():
            principal = self._operator(_bearer_of(caller))
            if principal is None or principal.role is not Role.OPERATOR:
                principal = self._tokens.bearer(_bearer_of(caller))
            principal.demand(session_id, [Grant.END])
            return principal

    def watcher(self, caller: HTTPConnection) -> Principal:
        """Demand an operator, the bearer of any token, or any caller if the deployment is open."""
        with self._counting():
            principal = self._operator(_bearer_of(caller)) or self._tokens.bearer(_bearer_of(caller))
            principal.demand(principal.scope or "", frozenset(Grant))
            return principal

    def watched_session(self, caller: HTTPConnection, session_id: str) -> Principal:
        """Like `watcher`, but for this session. For a participant's token call `session` too."""
        principal = self.watcher(caller)
        if principal.room is None:
            with self._counting():
                principal.demand(session_id, frozenset(Grant))
        return principal

    def _operator(self, key: str | None) -> Principal | None:
        owner = None if key is None else self._keys.owner(key)
        if owner is not None:
            return Principal.operator(owner)
        return Principal.anyone() if self._demo_open else None

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except Problem as problem:
            raise self._refused(problem) from problem.__cause__

    def _limit(self, limiter: RateLimiter, caller: HTTPConnection, principal: Principal) -> Principal:
        now_s = self._clock.monotonic_s()
        address = caller_of(caller.client.host if caller.client else None)
        try:
            limiter.demand(f"address {address}", now_s, "address")
            if principal.role is Role.OPERATOR:
                limiter.demand(f"key {principal.name}", now_s, "API key")
        except Problem as problem:
            raise self._refused(problem) from None
        return principal

    def _refused(self, problem: Problem) -> Problem:
        self._metrics.request_refused(problem.code)
        return problem


def _bearer_of(caller: HTTPConnection) -> str | None:
    return bearer_token(caller.headers.get("authorization"))


def access_of(connection: HTTPConnection) -> Access:
    access: Access = connection.app.state.access
    return access


def _count(request: Request) -> None:
    access_of(request).request(request)


#: A dependency of every route: counts the request towards the limit of its address.
COUNTED = Depends(_count)
Gate = Annotated[Access, Depends(access_of)]
