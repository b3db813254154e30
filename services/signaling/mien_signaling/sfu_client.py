"""The two requests of a WHIP client (RFC 9725): POST an offer, and DELETE the session that it made.

The answer of an SFU is read with limits on its time and size. Redirects (307, 308) are followed as RFC 9725, section
4.5 asks, within the operator's origins. Link headers (STUN and TURN servers) are ignored: signaling needs none, and an
SFU must not choose to whom it talks. Proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult

import h11

from mien_signaling.sfu_target import BadUrl, Endpoint, ForeignUrl, SfuTarget, path_of

POST_TIMEOUT_S, DELETE_TIMEOUT_S = 10.0, 5.0
MAX_ANSWER_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 16 * 1024
_MAX_REDIRECTS = 3
_READ_BYTES = 16 * 1024
_REDIRECTS = {307, 308}
#: What DELETE may answer when the session is gone at the SFU.
_GONE = {404, 410}
_LONGEST_RETRY_S = 300.0


class SfuUnreachable(Exception):
    """The SFU could not be reached, or did not answer in time, or not with HTTP."""


class SfuRefused(Exception):
    """The SFU answered with another status than the one that means success. retry_after_s: what it asked for."""

    def __init__(self, status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(f"the SFU answered with status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class BadAnswer(Exception):
    """The SFU's answer is too large, is not SDP, or names a URL that is not its own."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new session at the SFU. location: its URL."""

    location: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: dict[str, str]
    body: bytes


async def publish(target: SfuTarget, endpoint: Endpoint, offer: str, timeout_s: float = POST_TIMEOUT_S) -> Created:
    """POST an offer. Raises SfuUnreachable, SfuRefused or BadAnswer."""
    headers = {"Content-Type": "application/sdp", "Accept": "application/sdp"}
    url, response = await _request(target, "POST", endpoint.url, endpoint.bearer, headers, offer.encode(), timeout_s)
    if response.status != 201:
        raise SfuRefused(response.status, _retry_after_s(response.headers))
    location = response.headers.get("location")
    if not location:
        raise BadAnswer("the SFU's answer has no Location")
    try:
        return Created(target.resolve(location, url).geturl(), response.body.decode())
    except (BadUrl, ForeignUrl, UnicodeDecodeError) as error:
        raise BadAnswer(str(error)) from error


async def unpublish(target: SfuTarget, location: str, bearer: str | None, timeout_s: float = DELETE_TIMEOUT_S) -> None:
    """DELETE a session at the SFU; one that is gone already is fine. Raises SfuUnreachable, SfuRefused or BadAnswer."""
    try:
        url = target.resolve(location, target.base)
    except (BadUrl, ForeignUrl) as error:
        raise BadAnswer(str(error)) from error
    _, response = await _request(target, "DELETE", url, bearer, {}, b"", timeout_s)
    if not 200 <= response.status < 300 and response.status not in _GONE:
        raise SfuRefused(response.status, _retry_after_s(response.headers))


async def _request(
    target: SfuTarget,
    method: str,
    url: SplitResult,
    bearer: str | None,
    headers: dict[str, str],
    body: bytes,
    timeout_s: float,
) -> tuple[SplitResult, _Response]:
    """The response, and the URL that gave it after redirects."""
    if bearer is not None:
        headers = headers | {"Authorization": f"Bearer {bearer}"}
    with _named_errors():
        async with asyncio.timeout(timeout_s):
            for _ in range(_MAX_REDIRECTS + 1):
                response = await _exchange(method, url, headers, body)
                if response.status not in _REDIRECTS:
                    return url, response
                try:
                    url = target.resolve(response.headers.get("location", ""), url)
                except (BadUrl, ForeignUrl) as error:
                    raise BadAnswer(str(error)) from error
    raise BadAnswer(f"the SFU redirects more than {_MAX_REDIRECTS} times")


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SfuUnreachable("the SFU did not answer in time") from error
    except (OSError, EOFError, ssl.SSLError) as error:
        raise SfuUnreachable(f"the SFU could not be reached: {type(error).__name__}") from error
    except h11.RemoteProtocolError as error:
        raise SfuUnreachable("the SFU does not answer with HTTP") from error


async def _exchange(method: str, url: SplitResult, headers: dict[str, str], body: bytes) -> _Response:
    """One request on a new connection."""
    is_tls = url.scheme == "https"
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port or (443 if is_tls else 80), ssl=ssl.create_default_context() if is_tls else None
    )
    try:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        sent = {"Host": url.netloc, "User-Agent": "Mien", "Connection": "close", "Content-Length": str(len(body))}
        request = h11.Request(method=method, target=path_of(url), headers=list((sent | headers).items()))
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(http.send(event) or b"")
        await writer.drain()
        return await _read(reader, http)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, http: h11.Connection) -> _Response:
    head: h11.Response | None = None
    body = bytearray()
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                http.receive_data(await reader.read(_READ_BYTES))
            case h11.Response() as head:
                pass
            case h11.Data(data=data):
                body += data
                if len(body) > MAX_ANSWER_BYTES:
                    raise BadAnswer(f"the SFU's answer is larger than {MAX_ANSWER_BYTES} bytes")
            case h11.EndOfMessage():
                assert head is not None  # h11 gives the head first
                names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
                return _Response(head.status_code, names, bytes(body))
            case h11.ConnectionClosed():
                raise EOFError("the SFU closed the connection")


def _retry_after_s(headers: dict[str, str]) -> float:
    """Seconds only: a date would need the SFU's clock. 0 without one."""
    text = headers.get("retry-after", "")
    return min(float(text), _LONGEST_RETRY_S) if text.isdecimal() and len(text) < 10 else 0.0
