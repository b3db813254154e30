"""Signaling's own figures: closed sets of labels, there from the start."""

from __future__ import annotations

from enum import StrEnum

import pytest

from mien_signaling.metrics import SignalingMetrics
from mien_signaling.peer_session import Gone
from mien_signaling.retransmission import Ignored


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mien_viewers_gone_total", Gone), ("mien_viewer_nack_packets_ignored_total", Ignored)],
)
def test_every_reason_is_there_before_it_is_counted(name: str, expected: type[StrEnum]) -> None:
    metrics = SignalingMetrics()
    reasons = {
        sample.labels["reason"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }
    assert reasons == set(expected)
