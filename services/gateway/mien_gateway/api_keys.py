"""Operators' API keys. Several keys are valid at once, so that a new key can replace an old one without a gap.

Only their SHA-256 digests are kept and compared. Keys are random and long, so a slower hash is not needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: The settings may contain the digest of a key, so that a service can check keys that it does not know.
DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(entry: str) -> bool:
    """Whether an entry of the settings is a key's digest (`sha256:` and 64 hexadecimal digits) instead of a key."""
    return _DIGEST.fullmatch(entry) is not None


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The digests of all valid keys."""

    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> ApiKeys:
        """From keys, or from digests that `is_digest` accepts."""
        return cls(
            tuple(
                bytes.fromhex(entry.removeprefix(DIGEST_PREFIX)) if is_digest(entry) else _digest(entry)
                for entry in entries
            )
        )

    def owner(self, key: str) -> str | None:
        """A name for the key's owner, None for an invalid key. The name is constant and does not reveal the key.

        The key is compared with all keys in constant time, so that the time does not tell which one is similar.
        """
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, good) for good in self.digests]
        return digest.hex()[:16] if any(matches) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
