"""Signaling's own figures: closed sets of labels, there from the start."""

from __future__ import annotations

from mien_signaling.metrics import SignalingMetrics
from mien_signaling.peer import Gone


def test_every_reason_to_go_is_there_before_anybody_goes() -> None:
    metrics = SignalingMetrics()
    reasons = {
        sample.labels["reason"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "mien_viewers_gone_total"
    }
    assert reasons == set(Gone)
