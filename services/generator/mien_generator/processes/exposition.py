"""One exposition of metrics from those of several processes: workers, device and host. Pure.

Counters and histograms of a process that has ended stay in the sum, so that no counter ever falls while the generator
runs. Its gauges are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

Series = tuple[str, tuple[tuple[str, str], ...]]

#: Gauges of which the sum means nothing.
_GREATEST = {"mien_build_info", "mien_generator_info", "mien_backend_fallback_info", "mien_device_load_ratio"}
_GREATEST |= {"process_max_fds", "python_info"}
#: Gauges that only the host knows: the device has no connection to Redis, and a worker may be just starting.
_HOSTS = {"mien_redis_up", "mien_ready", "process_start_time_seconds"}


@dataclass
class _Family:
    help: str
    type: str
    series: dict[Series, float] = field(default_factory=dict)


class Exposition:
    """The metrics of the processes of one generator."""

    def __init__(self) -> None:
        self._past: dict[str, _Family] = {}

    def ended(self, text: str) -> None:
        """Keep the counters of a process that has ended. text: its last exposition."""
        for name, family in _families(text).items():
            if family.type in {"counter", "histogram", "summary"}:
                _add(self._past, name, family)

    def of(self, texts: Iterable[str]) -> bytes:
        """The exposition of all processes that run, and of those that have ended. Prometheus' text format.

        texts: the host's first.
        """
        total: dict[str, _Family] = {}
        for name, family in self._past.items():
            _add(total, name, family)
        for text in texts:
            for name, family in _families(text).items():
                _add(total, name, family)
        return "".join(_lines(total)).encode()


def _families(text: str) -> Mapping[str, _Family]:
    found: dict[str, _Family] = {}
    for metric in text_string_to_metric_families(text):
        # The parser drops the suffix of a counter's family, which the text format has.
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        family = found.setdefault(name, _Family(metric.documentation, metric.type))
        for sample in metric.samples:
            family.series[sample.name, tuple(sample.labels.items())] = sample.value
    return found


def _add(total: dict[str, _Family], name: str, family: _Family) -> None:
    into = total.setdefault(name, _Family(family.help, family.type))
    for series, value in family.series.items():
        if series not in into.series:
            into.series[series] = value
        elif name in _GREATEST:
            into.series[series] = max(into.series[series], value)
        elif name not in _HOSTS:
            into.series[series] += value


def _lines(families: Mapping[str, _Family]) -> Iterable[str]:
    for name, family in families.items():
        escaped = family.help.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {name} {escaped}\n# TYPE {name} {family.type}\n"
        for (sample, labels), value in family.series.items():
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
            number = floatToGoString(value)  # type: ignore[no-untyped-call]
            yield f"{sample}{{{inside}}} {number}\n" if inside else f"{sample} {number}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
