"""Reads the services' own metrics. Percentiles of histograms are computed as in Prometheus' histogram_quantile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import httpx
from load.figures import Spread
from prometheus_client.parser import text_string_to_metric_families

#: Cumulative counts of a histogram by upper bound in seconds.
Buckets = Counter[float]


async def histogram(urls: Iterable[str], name: str) -> Buckets:
    """The buckets of one histogram, summed over services and labels."""
    total: Buckets = Counter()
    for labels, value in await _samples(urls, f"{name}_bucket"):
        total[float(labels["le"])] += int(value)
    return total


async def counter(urls: Iterable[str], name: str, label: str) -> Counter[str]:
    """The values of one counter by one label, summed over services and the other labels."""
    total: Counter[str] = Counter()
    for labels, value in await _samples(urls, name):
        total[labels[label]] += int(value)
    return total


async def _samples(urls: Iterable[str], name: str) -> list[tuple[dict[str, str], float]]:
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as http:
        texts = [(await http.get(f"{url}/metrics")).text for url in urls]
    return [
        (sample.labels, sample.value)
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def quantile(before: Buckets, after: Buckets, share: float) -> float | None:
    """The quantile of the observations between two scrapes: `share` of them lie below it.

    Observations count as evenly distributed within a bucket. Beyond the last finite bound the result is that bound.
    None if there were no observations.
    """
    bounds = sorted(after)
    counts = [after[bound] - before[bound] for bound in bounds]
    if not counts or counts[-1] == 0:
        return None
    wanted, lower_s, lower_count = share * counts[-1], 0.0, 0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if math.isinf(bound):
                return lower_s
            return lower_s + (bound - lower_s) * (wanted - lower_count) / max(1, count - lower_count)
        lower_s, lower_count = bound, count
    return lower_s


def spread(before: Buckets, after: Buckets) -> Spread:
    """The observations between two scrapes, in milliseconds. Without a mean: a histogram has no exact one."""

    def milliseconds(share: float) -> float | None:
        value_s = quantile(before, after, share)
        return None if value_s is None else round(value_s * 1000, 2)

    count = max(after.values(), default=0) - max(before.values(), default=0)
    return Spread(count=count, p50=milliseconds(0.5), p95=milliseconds(0.95), p99=milliseconds(0.99))
