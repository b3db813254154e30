"""Temporary credentials for a TURN server (draft-uberti-behave-turn-rest-00, coturn's use-auth-secret).

The TURN server knows one secret and no users. A user name contains its expiry time, and the password proves that a
holder of the secret made the user name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from mien_shared.settings import IceServer, ServiceSettings


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """The credentials that a client sends to the TURN server."""

    username: str
    credential: str


def turn_credentials(secret: str, user: str, expires_unix_s: int) -> TurnCredentials:
    """Credentials that expire at `expires_unix_s`: `expiry:user`, and its HMAC-SHA1 with the secret, as base64."""
    username = f"{expires_unix_s}:{user}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return TurnCredentials(username, base64.b64encode(digest).decode())


def ice_servers_for(settings: ServiceSettings, session_id: str, now_unix_s: float) -> list[IceServer]:
    """The ICE servers for one connection of a participant of this session: those of the settings, and TURN.

    Every call makes a new TURN user, because TURN servers count their quota by user. TURN servers log user names, and
    session ids must not be logged. So the name contains a digest of the id.
    """
    servers = list(settings.ice_servers)
    if settings.turn_urls and settings.turn_secret is not None:
        user = f"{hashlib.sha256(session_id.encode()).hexdigest()[:16]}-{secrets.token_hex(8)}"
        expires_unix_s = int(now_unix_s) + settings.turn_lifetime_s
        made = turn_credentials(settings.turn_secret.get_secret_value(), user, expires_unix_s)
        servers.append(IceServer(urls=settings.turn_urls, username=made.username, credential=made.credential))
    return servers
