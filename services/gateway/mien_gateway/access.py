"""Who may call what, and how often: API keys and tokens to 401 and 403, limits to 429.

An operator's API key and a session's token come the same way, as `Authorization: Bearer`. The key makes, lists, sees
and ends; a token feeds, watches or ends the one session it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from mien_gateway.api_keys import ApiKeys
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.settings import GatewaySettings
from mien_shared.clock import Clock
from mien_shared.http.documents import problems
from mien_shared.http.limits import RateLimiter, caller_of
from mien_shared.http.problems import Problem
from mien_shared.http.tokens import Grant, NotGranted, TokenError, TokenIssuer, bearer

#: RFC 6750, section 3.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mien"'}

#: How OpenAPI names the two; what they open is judged below.
API_KEY = Depends(HTTPBearer(scheme_name="API key", description="An operator's key (MIEN_API_KEYS)", auto_error=False))
TOKEN = Depends(HTTPBearer(scheme_name="Session token", description="As POST /v1/sessions hands out", auto_error=False))

_ANYWHERE = {
    "s408": "`body-timeout`",
    "s413": "`body-too-large`",
    "s422": "`invalid-request`",
    "s429": "`too-many-requests`; come back after Retry-After",
}


def answers(**codes_by_status: str) -> dict[int | str, dict[str, Any]]:
    """A route's problems for FastAPI's `responses`, with those that any route has."""
    return problems(**(_ANYWHERE | codes_by_status))


class Access:
    """Raises the Problem that stands between a caller and what it asks for."""

    def __init__(self, settings: GatewaySettings, tokens: TokenIssuer, metrics: GatewayMetrics, clock: Clock) -> None:
        self._keys = ApiKeys.of(key.get_secret_value() for key in settings.api_keys)
        self._tokens = tokens
        self._demo_open = settings.demo_open
        self._metrics = metrics
        self._clock = clock
        self._requests = RateLimiter(settings.requests_per_minute)
        self._sessions = RateLimiter(settings.sessions_per_minute)
        self._uploads = RateLimiter(settings.uploads_per_minute)

    def request(self, caller: HTTPConnection) -> None:
        """Any call at all: one of what its address may make."""
        self._limit(self._requests, caller, None)

    def new_session(self, caller: HTTPConnection) -> None:
        """An operator's call, among those that its key and its address may make."""
        self._limit(self._sessions, caller, self._operator(caller))

    def upload(self, caller: HTTPConnection) -> None:
        """An operator's call, among those that its key and its address may make."""
        self._limit(self._uploads, caller, self._operator(caller))

    def operator(self, caller: HTTPConnection) -> None:
        """A call for bearers of an API key, and for anyone where the deployment is open."""
        self._operator(caller)

    def uplink(self, session_id: str, token: str | None) -> None:
        """A speaker's: the token that feeds, whichever way it came. No operator speaks for somebody else."""
        self._session(session_id, token, [Grant.PUBLISH])

    def end_session(self, caller: HTTPConnection, session_id: str) -> None:
        """A call for bearers of the speaker's token, and for operators."""
        token = bearer(caller.headers.get("authorization"))
        if token is None or self._keys.owner(token) is None:
            self._session(session_id, token, [Grant.END])

    def watched_session(self, caller: HTTPConnection, session_id: str) -> None:
        """A call for those who may see a session: with any of its tokens, operators, and anyone where it is open."""
        if not self.is_operator(caller):
            self._session(session_id, bearer(caller.headers.get("authorization")), Grant)

    def is_operator(self, caller: HTTPConnection) -> bool:
        """Whether an API key comes with it, or the deployment is open to anyone."""
        key = bearer(caller.headers.get("authorization"))
        return self._demo_open or (key is not None and self._keys.owner(key) is not None)

    def _session(self, session_id: str, token: str | None, any_of: Iterable[Grant]) -> None:
        if token is None:
            raise self._refused(Problem(401, "token-missing", "this needs the session's token as a bearer", _CHALLENGE))
        refused: NotGranted | None = None
        for grant in any_of:
            try:
                self._tokens.check(token, session_id, grant)
            except NotGranted as error:
                refused = error
            except TokenError as error:
                raise self._refused(Problem(401, "token-invalid", str(error), _CHALLENGE)) from error
            else:
                return
        raise self._refused(Problem(403, "token-not-granted", str(refused)))

    def _operator(self, caller: HTTPConnection) -> str | None:
        """Who calls; None for anyone, where the deployment is open."""
        key = bearer(caller.headers.get("authorization"))
        owner = None if key is None else self._keys.owner(key)
        if owner is None and not self._demo_open:
            code, detail = (
                ("api-key-missing", "this needs an operator's API key as a bearer")
                if key is None
                else ("api-key-invalid", "this is no API key of an operator here")
            )
            raise self._refused(Problem(401, code, detail, _CHALLENGE))
        return owner

    def _limit(self, limiter: RateLimiter, caller: HTTPConnection, owner: str | None) -> None:
        now_s = self._clock.monotonic_s()
        address = caller_of(caller.client.host if caller.client else None)
        try:
            limiter.demand(f"address {address}", now_s, "address")
            if owner is not None:
                limiter.demand(f"key {owner}", now_s, "API key")
        except Problem as problem:
            raise self._refused(problem) from None

    def _refused(self, problem: Problem) -> Problem:
        self._metrics.request_refused(problem.code)
        return problem


def access_of(connection: HTTPConnection) -> Access:
    access: Access = connection.app.state.access
    return access


def _count(request: Request) -> None:
    access_of(request).request(request)


#: Every route of the API counts against its caller's address.
COUNTED = Depends(_count)
Gate = Annotated[Access, Depends(access_of)]
