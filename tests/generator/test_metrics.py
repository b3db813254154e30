"""The generator's own metrics: their label values are fixed and exist from the start."""

from __future__ import annotations

from mien_generator.metrics import GeneratorMetrics, StartResult


def value(metrics: GeneratorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_sessions_are_counted_by_tier_and_tiers_are_few() -> None:
    metrics = GeneratorMetrics()
    metrics.generates_with(("onnx-384", "onnx-256", "warp"), "libx264")
    metrics.sessions(["onnx-384", "warp", "warp"])
    assert value(metrics, "mien_generator_sessions") == 3
    tiers = ("onnx-384", "onnx-256", "warp")
    assert [value(metrics, "mien_tier_sessions", tier=tier) for tier in tiers] == [1, 0, 2]
    metrics.sessions([])
    assert [value(metrics, "mien_tier_sessions", tier=tier) for tier in tiers] == [0, 0, 0]


def test_a_fallback_to_warp_names_its_reason() -> None:
    metrics = GeneratorMetrics()
    metrics.fell_back("weights")
    assert value(metrics, "mien_backend_fallback_info", reason="weights") == 1
    assert value(metrics, "mien_backend_fallback_info", reason="runtime") == 0


def test_counters_are_there_before_anything_happens() -> None:
    metrics = GeneratorMetrics()
    for name, label, values in (
        ("mien_generated_frames_total", "motion", ("speaker", "default")),
        ("mien_skipped_motion_total", "reason", ("superseded", "unusable", "unknown_session", "length", "version")),
        ("mien_idr_requests_total", "reason", ("join", "pli", "gap", "redis")),
        ("mien_generator_sessions_started_total", "result", ("placed", "claimed", "failed", "refused")),
        (
            "mien_generator_sessions_ended_total",
            "reason",
            ("stopped", "taken_over", "drained", "expired", "failed", "shutdown", "engine_failed"),
        ),
        ("mien_stage_seconds_count", "stage", ("wait", "face", "pool", "compose", "encode")),
        ("mien_tier_steps_total", "direction", ("down", "up")),
        ("mien_busy_seconds_total", "thread", ("device", "pool")),
    ):
        for label_value in values:
            assert value(metrics, name, **{label: label_value}) == 0, (name, label_value)


def test_a_session_claimed_is_told_from_one_that_was_placed() -> None:
    metrics = GeneratorMetrics()
    metrics.session_started(claimed=True, seconds=0.1)
    metrics.session_started(claimed=False, seconds=0.3)
    metrics.session_not_started(StartResult.FAILED)
    assert [
        value(metrics, "mien_generator_sessions_started_total", result=result)
        for result in ("placed", "claimed", "failed")
    ] == [1, 1, 1]
    assert value(metrics, "mien_session_start_seconds_count") == 2
