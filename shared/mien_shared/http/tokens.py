"""Session tokens: a signed JWT that says which session its bearer may feed, watch or end, and until when.

Each names the key that signed it (`kid`), so that a new key can take over while the old one's tokens live on: put the
new secret first and the old one among the old ones, and take it out once its last token has expired.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import jwt

from mien_shared.settings import ServiceSettings

ISSUER = "mien"
AUDIENCE = "mien-session"
ALGORITHM = "HS256"
DEFAULT_LIFETIME_S = 12 * 3600
#: How much later a token expires where it is checked than it says: the clocks of two machines differ.
LEEWAY_S = 10


class Grant(StrEnum):
    """What a token lets its bearer do with the one session it names."""

    PUBLISH = "publish"
    WATCH = "watch"
    END = "end"


SPEAKER_GRANTS = frozenset(Grant)
VIEWER_GRANTS = frozenset({Grant.WATCH})


class TokenError(Exception):
    """A token that opens nothing; the text says why and never quotes the token."""


class NotGranted(TokenError):
    """A valid token, but not for this: HTTP's 403, where the others are 401."""


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs session tokens with one secret; checks them with that one and with those it has replaced."""

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
    ) -> str:
        """A token for `session_id`. Lifetimes are wall-clock time, which is what other machines compare."""
        now = int(time.time() if now_s is None else now_s)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session_id,
            "iat": now,
            "exp": now + lifetime_s,
            "grants": sorted(grants),
        }
        return jwt.encode(claims, self.secret, algorithm=ALGORITHM, headers={"kid": key_id(self.secret)})

    def check(self, token: str, session_id: str, grant: Grant) -> None:
        """Raise TokenError unless `token` is ours, in time, for this session, and holds this grant."""
        try:
            claims = jwt.decode(
                token,
                self._secret_of(token),
                leeway=LEEWAY_S,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # `iat` says when, it forbids nothing (RFC 7519, section 4.1.6): a signer whose clock is ahead costs
                # nobody the session.
                options={"require": ["iss", "aud", "sub", "iat", "exp"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("the token has expired") from error
        except jwt.InvalidTokenError as error:
            raise TokenError("the token is not valid here") from error
        if claims["sub"] != session_id:
            raise NotGranted("the token is for another session")
        if grant not in claims.get("grants", ()):
            raise NotGranted(f"the token does not grant {grant}")

    def _secret_of(self, token: str) -> str:
        """The secret that the token says it was signed with; what it says is proved by its signature alone."""
        named = jwt.get_unverified_header(token).get("kid")
        for secret in (self.secret, *self.old_secrets):
            if named == key_id(secret):
                return secret
        raise jwt.InvalidTokenError("the token names no key of ours")


def key_id(secret: str) -> str:
    """A name for a signing secret that tells nothing of it."""
    return hashlib.sha256(b"mien key id:" + secret.encode()).hexdigest()[:16]


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header (RFC 6750, section 2.1), None where there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def claimed_session(token: str) -> str:
    """The session that a token names, before anything of it has been checked; empty where it names none."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return ""
    return str(claims.get("sub", ""))
