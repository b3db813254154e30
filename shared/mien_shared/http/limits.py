"""Rate limits: a token bucket for each caller, and a limit on the number of buckets."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from math import ceil

from mien_shared.http.problems import Code, Problem

MAX_CALLERS = 10_000
#: One IPv6 subscriber has at least a network of 64 bits (RFC 6177); all its addresses count as one caller.
_IPV6_HOST_BITS = 64


@dataclass
class RateLimiter:
    """Allows each caller `per_minute` requests on average, and a quarter of that at once."""

    per_minute: int
    # caller -> (tokens left, time of the last use); the least recently used bucket comes first
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    @property
    def burst(self) -> float:
        return max(1.0, self.per_minute / 4)

    def wait_s(self, caller: str, now_s: float) -> float:
        """Take a token and return 0, or return how many seconds the caller must wait for one."""
        per_s = self.per_minute / 60
        tokens, then_s = self._buckets.pop(caller, (self.burst, now_s))
        tokens = min(self.burst, tokens + (now_s - then_s) * per_s)
        passes = tokens >= 1
        self._buckets[caller] = (tokens - 1 if passes else tokens, now_s)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)  # the least recently used: it has refilled the longest
        return 0.0 if passes else (1 - tokens) / per_s

    def demand(self, caller: str, now_s: float, who: str = "address") -> None:
        """Take a token, or raise 429 with Retry-After. who: what the problem calls the caller."""
        wait_s = self.wait_s(caller, now_s)
        if wait_s > 0:
            detail = f"too many requests from this {who}"
            raise Problem(Code.TOO_MANY_REQUESTS, detail, retry_after_s=ceil(wait_s))


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
