"""Operators' API keys: several are good at once, so that one can follow another without a gap.

Only their SHA-256 digests are kept and compared. A key is random and long, so nothing slower than one hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: In settings a key may stand as its digest, so that a service can check keys that it does not know.
DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(entry: str) -> bool:
    """Whether an entry of the settings is a key's digest, `sha256:` and 64 hexadecimal digits, and no key."""
    return _DIGEST.fullmatch(entry) is not None


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The digests of all keys that are good now."""

    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> ApiKeys:
        """Of keys, or of digests as `is_digest` knows them."""
        return cls(
            tuple(
                bytes.fromhex(entry.removeprefix(DIGEST_PREFIX)) if is_digest(entry) else _digest(entry)
                for entry in entries
            )
        )

    def owner(self, key: str) -> str | None:
        """A name for the key's owner, the same for the same key and telling nothing of it; None if it opens nothing.

        All keys are compared, each in constant time: how long it takes says nothing about which one was nearly met.
        """
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, good) for good in self.digests]
        return digest.hex()[:16] if any(matches) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
