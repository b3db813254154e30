"""How often one address may ask: a token bucket each, and no more buckets than fit."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

MAX_ADDRESSES = 10_000


@dataclass
class RateLimiter:
    """`per_minute` requests of one address on average, a quarter of that at once."""

    per_minute: int
    # address -> (tokens left, when that was), the longest untouched first
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    @property
    def burst(self) -> float:
        return max(1.0, self.per_minute / 4)

    def wait_s(self, address: str, now_s: float) -> float:
        """0 if the request may pass, and takes a token; else how long until one is there."""
        per_s = self.per_minute / 60
        tokens, then_s = self._buckets.pop(address, (self.burst, now_s))
        tokens = min(self.burst, tokens + (now_s - then_s) * per_s)
        passes = tokens >= 1
        self._buckets[address] = (tokens - 1 if passes else tokens, now_s)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)  # whoever was quiet longest has the fullest bucket
        return 0.0 if passes else (1 - tokens) / per_s
