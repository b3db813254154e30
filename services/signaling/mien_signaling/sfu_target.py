"""Where the operator's SFU is, and which of the URLs that it names are its own. Pure.

All URLs come from the operator's settings. An SFU answers with a URL (Location), and may send the client elsewhere
(307, 308). Both carry our bearer, so they must lead to the SFU's own origin or to one that the operator has named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from mien_shared.bus.messages import SessionRecord

#: What the URL and the bearer may contain, in braces.
PLACEHOLDERS = frozenset({"session_id", "room_id", "participant_id", "stream_key"})
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_MAX_URL_CHARACTERS = 2000


class BadUrl(ValueError):
    """The text is not a URL that requests may be sent to."""


class NoKey(LookupError):
    """The URL or the bearer names something that the session does not have; the text says what."""


class ForeignUrl(ValueError):
    """The SFU named a URL of an origin that is not the operator's."""


def url_of(text: str) -> SplitResult:
    """Raises BadUrl. A fragment is dropped."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise BadUrl(f"the URL cannot be read: {error}") from error
    if not (text.isascii() and text.isprintable()) or " " in text or len(text) > _MAX_URL_CHARACTERS:
        raise BadUrl(f"the URL must be printable ASCII, at most {_MAX_URL_CHARACTERS} characters")
    if parts.scheme not in {"https", "http"}:
        raise BadUrl("the URL must begin with https:// or http://")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise BadUrl("the URL must name a host and no user")
    return parts._replace(fragment="")


def origin_of(url: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    return url.scheme, (url.hostname or "").lower(), url.port or (443 if url.scheme == "https" else 80)


def path_of(url: SplitResult) -> str:
    """What a request line names."""
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def check_template(text: str) -> None:
    """Raises BadUrl or ValueError for a placeholder that does not exist."""
    unknown = sorted(set(_PLACEHOLDER.findall(text)) - PLACEHOLDERS)
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
        raise ValueError(f"{{{unknown[0]}}} is not known; use {known}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one session is published. bearer: None where the SFU wants none."""

    url: SplitResult
    bearer: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SfuTarget:
    """The operator's SFU. url, bearer: with placeholders. origins: further ones that belong to it, as URLs.

    Raises BadUrl or ValueError if one of these is wrong.
    """

    url: str
    bearer: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in (self.url, self.bearer or ""):
            check_template(text)
        if _PLACEHOLDER.search(urlsplit(self.url).netloc):
            raise BadUrl("a placeholder may stand in the path or the query only")
        for text in (self.base.geturl(), *self.origins):
            url_of(text)

    @property
    def base(self) -> SplitResult:
        """The SFU's URL, against which nothing but its origin is taken."""
        return url_of(_PLACEHOLDER.sub("x", self.url))

    def endpoint(self, session: SessionRecord, stream_key: str | None) -> Endpoint:
        """Raises NoKey."""
        values = {
            "session_id": session.session_id,
            "room_id": session.room_id,
            "participant_id": session.participant_id,
            "stream_key": stream_key,
        }
        url = url_of(_filled(self.url, {name: value and quote(value, safe="") for name, value in values.items()}))
        return Endpoint(url, None if self.bearer is None else _filled(self.bearer, values))

    def resolve(self, named: str, base: SplitResult) -> SplitResult:
        """A URL that the SFU named in its answer to `base`. Raises BadUrl or ForeignUrl."""
        try:
            url = url_of(urljoin(base.geturl(), named))
        except ValueError as error:
            raise BadUrl(str(error)) from error
        if origin_of(url) not in self._own_origins():
            raise ForeignUrl("the SFU named a URL of another origin; MIEN_SFU_ORIGINS may allow it")
        return url

    def _own_origins(self) -> Iterable[tuple[str, str, int]]:
        return {origin_of(self.base), *(origin_of(url_of(text)) for text in self.origins)}


def _filled(template: str, values: dict[str, str | None]) -> str:
    def value(match: re.Match[str]) -> str:
        found = values[match[1]]
        if not found:
            raise NoKey(f"the session has no {match[1]}")
        return found

    return _PLACEHOLDER.sub(value, template)
