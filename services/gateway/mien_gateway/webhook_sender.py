"""One webhook request: where it may go, how it is signed (Standard Webhooks 1.0), and what the receiver answers.

An operator names the URL, and the gateway is inside a network. So a name is resolved here, every address is checked,
and the connection goes to a checked address: a name cannot change its meaning between check and use. Redirects are not
followed. Of the answer only the status line is read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

TIMEOUT_S = 10.0
_STATUS_LINE_BYTES = 1024
_SECRET_PREFIX = "whsec_"
_SECRET_BYTES = 32
_MAX_URL_CHARACTERS = 1000


class BadWebhookUrl(ValueError):
    """The URL is not one that webhooks may be sent to."""


class DeliveryFailed(Exception):
    """The receiver could not be reached, or did not answer with 2xx."""


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver's URL, taken apart."""

    url: SplitResult
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        return self.url.scheme == "https"

    @property
    def path(self) -> str:
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")


def new_secret() -> str:
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def target_of(url: str, private_allowed: bool) -> Target:
    """Raises BadWebhookUrl. Plain http is only for receivers in private networks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadWebhookUrl(f"the URL cannot be read: {error}") from error
    if not (url.isascii() and url.isprintable()) or " " in url or len(url) > _MAX_URL_CHARACTERS:
        raise BadWebhookUrl(f"the URL must be printable ASCII, at most {_MAX_URL_CHARACTERS} characters")
    if parts.scheme != "https" and not (private_allowed and parts.scheme == "http"):
        raise BadWebhookUrl("the URL must begin with https://")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise BadWebhookUrl("the URL must name a host and no user")
    return Target(parts, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def refusal(address: str, private_allowed: bool) -> str | None:
    """Why nothing is sent to an address, None if it may get requests."""
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found.is_multicast or found.is_unspecified:
        return f"{address} is no address of a host"
    if not found.is_global and not private_allowed:
        return f"{address} is a loopback, link-local or private address"
    return None


async def checked_address(target: Target, private_allowed: bool) -> str:
    """An address of the target's host. Raises BadWebhookUrl if any of its addresses is refused, or OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        if (reason := refusal(address, private_allowed)) is not None:
            raise BadWebhookUrl(f"webhooks are not sent there: {reason}")
    return addresses[0]


def signature(secret: str, delivery_id: str, timestamp_s: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 over "id.timestamp.body", version 1."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    signed = f"{delivery_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def request_bytes(target: Target, secret: str, delivery_id: str, timestamp_s: int, body: bytes) -> bytes:
    """The whole HTTP/1.1 request."""
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.url.netloc}",
        "User-Agent: Mien-Webhooks",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"webhook-id: {delivery_id}",
        f"webhook-timestamp: {timestamp_s}",
        f"webhook-signature: {signature(secret, delivery_id, timestamp_s, body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_of(line: bytes) -> int:
    """The status of an HTTP/1.x status line. Raises DeliveryFailed."""
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not (parts[1].isdigit() and len(parts[1]) == 3):
        raise DeliveryFailed("the receiver does not answer with HTTP")
    return int(parts[1])


async def send(target: Target, request: bytes, private_allowed: bool, timeout_s: float = TIMEOUT_S) -> None:
    """Send one request. Raises DeliveryFailed, also for a redirect, or BadWebhookUrl for a refused address."""
    try:
        async with asyncio.timeout(timeout_s):
            address = await checked_address(target, private_allowed)
            context = ssl.create_default_context() if target.is_tls else None
            server_name = target.host if target.is_tls else None
            reader, writer = await asyncio.open_connection(
                address, target.port, ssl=context, server_hostname=server_name, limit=_STATUS_LINE_BYTES
            )
            try:
                writer.write(request)
                await writer.drain()
                status = status_of(await reader.readuntil(b"\n"))
            finally:
                writer.transport.abort()  # what else the receiver sends is not read
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
        raise DeliveryFailed(f"the receiver did not answer: {error or type(error).__name__}") from error
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the receiver answered with status {status}")
