"""Credentials for a TURN server that lapse by themselves (draft-uberti-behave-turn-rest-00, coturn's use-auth-secret).

The server knows one secret and no users: a user name holds the time until which it is good, and the password proves
that we wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

from mien_shared.settings import IceServer, ServiceSettings


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What a client shows to the TURN server."""

    username: str
    credential: str


def turn_credentials(secret: str, user: str, expires_unix_s: int) -> TurnCredentials:
    """Credentials good until then: `expiry:user`, and its HMAC-SHA1 under the shared secret as base64."""
    username = f"{expires_unix_s}:{user}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return TurnCredentials(username, base64.b64encode(digest).decode())


def ice_servers_for(settings: ServiceSettings, session_id: str, now_unix_s: float) -> list[IceServer]:
    """The ICE servers of someone in this session: those of the settings, and TURN with credentials of its own.

    TURN servers log user names, and a session's id is not for logs: the user is a digest of it.
    """
    servers = list(settings.ice_servers)
    if settings.turn_urls and settings.turn_secret is not None:
        user = hashlib.sha256(session_id.encode()).hexdigest()[:16]
        expires_unix_s = int(now_unix_s) + settings.turn_lifetime_s
        made = turn_credentials(settings.turn_secret.get_secret_value(), user, expires_unix_s)
        servers.append(IceServer(urls=settings.turn_urls, username=made.username, credential=made.credential))
    return servers
