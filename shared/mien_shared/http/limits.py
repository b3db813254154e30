"""How often one caller may ask: a token bucket each, and no more buckets than fit."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from math import ceil

from mien_shared.http.problems import Problem

MAX_CALLERS = 10_000
#: What one subscriber is given of IPv6 at the least (RFC 6177): its addresses are one caller.
_IPV6_HOST_BITS = 64


@dataclass
class RateLimiter:
    """`per_minute` requests of one caller on average, a quarter of that at once."""

    per_minute: int
    # caller -> (tokens left, when that was), the longest untouched first
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    @property
    def burst(self) -> float:
        return max(1.0, self.per_minute / 4)

    def wait_s(self, caller: str, now_s: float) -> float:
        """0 if the request may pass, and takes a token; else how long until one is there."""
        per_s = self.per_minute / 60
        tokens, then_s = self._buckets.pop(caller, (self.burst, now_s))
        tokens = min(self.burst, tokens + (now_s - then_s) * per_s)
        passes = tokens >= 1
        self._buckets[caller] = (tokens - 1 if passes else tokens, now_s)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)  # whoever was quiet longest has the fullest bucket
        return 0.0 if passes else (1 - tokens) / per_s

    def demand(self, caller: str, now_s: float, who: str = "address") -> None:
        """Take a token, or raise 429 with Retry-After; `who` the caller is, as the problem says it."""
        wait_s = self.wait_s(caller, now_s)
        if wait_s > 0:
            detail = f"too many requests from this {who}"
            raise Problem(429, "too-many-requests", detail, {"Retry-After": str(ceil(wait_s))})


def caller_of(host: str | None) -> str:
    """The caller that an address stands for: an IPv4 address, an IPv6 network of 64 bits, or the text as it is."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return host or ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS))
    return str(address)
