"""Tokens and what they grant. A token is a signed JWT that names a session, what its bearer may do, and until when.
A participant's token names the participant and its room instead.

Each token names the key that signed it (`kid`), so that a new key can take over while tokens of the old key live on:
put the new secret first and the old one among the old ones, and remove the old one after its last token has expired.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import jwt

from mien_shared.http.principal import Grant, Principal, Role
from mien_shared.http.problems import Code, Problem
from mien_shared.settings import ServiceSettings

ISSUER = "mien"
AUDIENCE = "mien-session"
ALGORITHM = "HS256"
DEFAULT_LIFETIME_S = 12 * 3600
#: A token is accepted for this long after it expires, because the clocks of two machines differ.
LEEWAY_S = 10


SPEAKER_GRANTS = frozenset({Grant.PUBLISH, Grant.WATCH, Grant.END})
VIEWER_GRANTS = frozenset({Grant.WATCH})


class TokenError(Exception):
    """The token is not accepted; the text says why and never quotes the token."""


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs session tokens with one secret, and checks them with that secret and the old ones."""

    secret: str
    old_secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        old = tuple(secret.get_secret_value() for secret in settings.token_secrets_old)
        return cls(settings.token_secret.get_secret_value(), old)

    def issue(
        self,
        session_id: str,
        grants: Collection[Grant],
        lifetime_s: int = DEFAULT_LIFETIME_S,
        now_s: float | None = None,
        *,
        room_id: str | None = None,
    ) -> str:
        """A token for `session_id`. It expires by wall-clock time, because other machines check it.

        With `room_id`: a token for the participant of that room whose id takes the place of the session's.
        """
        now = int(time.time() if now_s is None else now_s)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session_id,
            "iat": now,
            "exp": now + lifetime_s,
            "grants": sorted(grants),
        } | ({} if room_id is None else {"room": room_id})
        return jwt.encode(claims, self.secret, algorithm=ALGORITHM, headers={"kid": key_id(self.secret)})

    def read(self, token: str) -> Principal:
        """The bearer of a token. Raises TokenError unless one of these keys signed it and it has not expired."""
        try:
            claims = jwt.decode(
                token,
                self._secret_of(token),
                leeway=LEEWAY_S,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # `iat` is informative (RFC 7519, section 4.1.6): a signer's clock may be ahead of ours.
                options={"require": ["iss", "aud", "sub", "iat", "exp"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("the token has expired") from error
        except jwt.InvalidTokenError as error:
            raise TokenError("the token is not valid here") from error
        grants = frozenset(grant for grant in Grant if grant in claims.get("grants", ()))
        name = hashlib.sha256(token.encode()).hexdigest()[:16]
        room = claims.get("room")
        role = Role.BEARER if room is None else Role.PARTICIPANT
        return Principal(role, name, grants, claims["sub"], claims["exp"] + LEEWAY_S, room)

    def bearer(self, token: str | None) -> Principal:
        """Like `read`, for a request: raises Problem 401 for a missing or refused token."""
        if token is None:
            raise Problem(Code.TOKEN_MISSING, "this call needs the session's token as a bearer")
        try:
            return self.read(token)
        except TokenError as error:
            raise Problem(Code.TOKEN_INVALID, str(error)) from error

    def _secret_of(self, token: str) -> str:
        """The secret that the token claims to be signed with; only the signature proves the claim."""
        named = jwt.get_unverified_header(token).get("kid")
        for secret in (self.secret, *self.old_secrets):
            if named == key_id(secret):
                return secret
        raise jwt.InvalidTokenError("the token names no signing key of this deployment")


def key_id(secret: str) -> str:
    """A name for a signing secret that reveals nothing of it."""
    return hashlib.sha256(b"mien key id:" + secret.encode()).hexdigest()[:16]


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization header (RFC 6750, section 2.1), None where there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
