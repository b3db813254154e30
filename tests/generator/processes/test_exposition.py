"""One exposition of the metrics of several processes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mien_generator.metrics import EndedBy, GeneratorMetrics
from mien_generator.processes.exposition import Exposition


def read(text: bytes) -> dict[str, float]:
    """Every series of an exposition that Prometheus' own parser reads: name{labels} -> value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            series = f"{sample.name}{_labels(sample.labels)}"
            assert series not in found, "each series once"
            found[series] = sample.value
    return found


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={value}" for name, value in sorted(labels.items())) + "}" if labels else ""


def process(*, sessions: int = 0, ended: int = 0, stages: tuple[float, ...] = ()) -> str:
    """The metrics of one process of a generator."""
    metrics = GeneratorMetrics()
    metrics.sessions([])
    if sessions:
        metrics.generates_with(["onnx-384", "warp"], "libx264")
        metrics.sessions(["warp"] * sessions)
    for _ in range(ended):
        metrics.session_ended(EndedBy.STOPPED)
    for seconds in stages:
        metrics.stage("encode", seconds)
    return metrics.exposition().decode()


def exposition(text: str) -> str:
    return f"# HELP m What it counts\n# TYPE m {text}"


def test_counters_gauges_and_histograms_are_added() -> None:
    texts = [process(sessions=2, ended=3, stages=(0.001, 0.3)), process(sessions=1, ended=4, stages=(0.001,))]
    found = read(Exposition().of(texts))
    assert found["mien_generator_sessions"] == 3
    assert found["mien_tier_sessions{tier=warp}"] == 3
    assert found["mien_generator_sessions_ended_total{reason=stopped}"] == 7
    assert found["mien_stage_seconds_bucket{le=0.002,stage=encode}"] == 2
    assert found["mien_stage_seconds_bucket{le=+Inf,stage=encode}"] == 3
    assert found["mien_stage_seconds_count{stage=encode}"] == 3
    assert found["mien_stage_seconds_sum{stage=encode}"] == pytest.approx(0.302)


def test_one_process_is_what_it_is() -> None:
    text = process(sessions=2, ended=1, stages=(0.01,))
    assert read(Exposition().of([text])) == read(text.encode())


def test_help_and_types_are_kept() -> None:
    text = process()
    lines = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in Exposition().of([text, text]).decode().splitlines() if line.startswith("#")] == lines


def test_no_process_has_no_metrics() -> None:
    assert Exposition().of([]) == b""
    assert Exposition().of(["", ""]) == b""


@pytest.mark.parametrize(
    "name", ["mien_build_info", "mien_generator_info", "mien_device_load_ratio", "process_max_fds"]
)
def test_gauges_whose_sum_means_nothing_are_the_greatest(name: str) -> None:
    texts = [f"# HELP {name} H\n# TYPE {name} gauge\n{name} {value}\n" for value in ("1.0", "2.5", "0.0")]
    assert read(Exposition().of(texts)) == {name: 2.5}


@pytest.mark.parametrize("name", ["mien_ready", "mien_redis_up", "process_start_time_seconds"])
@pytest.mark.parametrize("host", [0.0, 1.0])
def test_what_only_the_host_knows_is_the_host_s(name: str, host: float) -> None:
    texts = [f"# HELP {name} H\n# TYPE {name} gauge\n{name} {value}\n" for value in (host, 1.0, 0.0, 7.0)]
    assert read(Exposition().of(texts)) == {name: host}


def test_a_generator_with_a_device_is_ready_though_the_device_knows_no_redis() -> None:
    host, worker, device = GeneratorMetrics(), GeneratorMetrics(), GeneratorMetrics()
    for metrics in (host, worker):
        metrics.redis_answered()
        metrics.watch_readiness(lambda: True)
    found = read(Exposition().of(metrics.exposition().decode() for metrics in (host, worker, device)))
    assert (found["mien_ready"], found["mien_redis_up"]) == (1, 1)


# Processes that have ended


def test_counters_of_processes_that_have_ended_stay_and_gauges_go() -> None:
    sums = Exposition()
    sums.ended(process(sessions=2, ended=3, stages=(0.001,)))
    sums.ended(process(sessions=5, ended=1))
    found = read(sums.of([process(sessions=1, ended=1, stages=(0.1,))]))
    assert found["mien_generator_sessions"] == 1
    assert found["mien_generator_sessions_ended_total{reason=stopped}"] == 5
    assert found["mien_stage_seconds_count{stage=encode}"] == 2
    alone = read(sums.of([]))
    assert alone["mien_generator_sessions_ended_total{reason=stopped}"] == 4
    assert "mien_generator_sessions" not in alone


def test_reading_twice_counts_once() -> None:
    sums = Exposition()
    sums.ended(process(ended=3))
    texts = [process(ended=1)]
    assert read(sums.of(texts)) == read(sums.of(texts))


def test_no_counter_falls_while_processes_come_and_go() -> None:
    sums, running, before = Exposition(), [0, 0, 0], 0.0
    series = "mien_generator_sessions_ended_total{reason=stopped}"
    for number in range(8):
        running[number % 3] += number
        if number % 4 == 3:
            sums.ended(process(ended=running.pop(0)))
            running.append(0)
        now = read(sums.of(process(ended=ended) for ended in running))[series]
        assert now >= before
        before = now
    assert before == sum(range(8))


def test_a_process_that_ended_before_it_was_read_leaves_nothing() -> None:
    sums = Exposition()
    sums.ended("")
    assert sums.of([]) == b""


# The format


LABELS = st.dictionaries(
    st.sampled_from(["a", "b_c", "le", "path"]), st.text(st.characters(exclude_categories=["Cs"])), max_size=3
)


HELP = st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: f"Things {text}.")


@given(LABELS, HELP, st.integers(0, 2**53))
def test_labels_and_help_of_any_text_are_read_back(labels: dict[str, str], text: str, value: int) -> None:
    registry = CollectorRegistry()
    counter = Counter("things", text, sorted(labels), registry=registry)
    (counter.labels(**labels) if labels else counter).inc(value)
    given_text = generate_latest(registry).decode()
    kept = [line for line in given_text.split("\n") if "_created" not in line]
    assert Exposition().of(["\n".join(kept)]).decode() == "\n".join(kept)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "0.0", "-3.5", "1e+18"])
def test_every_number_is_read_back(value: str) -> None:
    text = exposition(f"gauge\nm {value}\n")
    assert str(read(Exposition().of([text]))["m"]) == str(float(value))


@pytest.mark.parametrize("value", ["\\", '"', "\n", "a\\nb", '\\"', "}", ",", "=", "{", "ä", " # "])
def test_what_has_a_meaning_in_the_format_is_escaped(value: str) -> None:
    registry = CollectorRegistry()
    Gauge("m", f"Help {value} text", ["label", "other"], registry=registry).labels(value, "x").set(2)
    text = generate_latest(registry).decode()
    once = Exposition().of([text, text])
    assert read(once) == {f"m{{label={value},other=x}}": 4.0}
    assert once.decode().splitlines()[0] == text.splitlines()[0]


def test_a_sum_can_be_added_again() -> None:
    registry = CollectorRegistry()
    Histogram("h_seconds", "H", ["kind"], registry=registry, buckets=(0.1, 1.0)).labels('a"\\\n').observe(0.5)
    Counter("c", "C", registry=registry).inc()
    text = generate_latest(registry).decode()
    twice = Exposition().of([text, text])
    four = read(Exposition().of([twice.decode(), twice.decode()]))
    assert four == {series: 4 * value for series, value in read(text.encode()).items()} | {
        series: value for series, value in four.items() if "_created" in series
    }
