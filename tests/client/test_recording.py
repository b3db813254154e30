"""What a viewer's report says, and that its recording can be played."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mien_client.recording import Recorder, ViewReport, trace_of
from mien_client.viewer import ReceivedFrame
from mien_shared.media.frame_trace import FrameTrace, insert_trace


def received(traces: list[FrameTrace | None], first_unix_s: float = 1000.0) -> list[ReceivedFrame]:
    """Pictures as a receiver decodes them, one every 40 ms, some with a trace."""
    encoder = av.video.codeccontext.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.time_base, encoder.options = Fraction(1, 90_000), {"tune": "zerolatency", "preset": "ultrafast"}
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for number, trace in enumerate(traces):
        picture = av.VideoFrame.from_ndarray(np.full((192, 320, 3), 8 * number, np.uint8), format="rgb24")
        picture.pts, picture.time_base = number * 3600, encoder.time_base
        for packet in encoder.encode(picture.reformat(format="yuv420p")):
            data = bytes(packet) if trace is None else insert_trace(bytes(packet), trace)
            again = av.Packet(data)
            again.pts, again.time_base = number * 3600, encoder.time_base
            frames += [ReceivedFrame(one, first_unix_s + number * 0.04) for one in decoder.decode(again)]
    return frames


def trace(capture_ms: int, is_stalled: bool = False) -> FrameTrace:
    return FrameTrace(capture_ms, 1, is_stalled, 0, 0, 0, 0)


def test_latency_is_from_capture_to_receipt() -> None:
    report = ViewReport()
    for frame in received([trace(1_000_000 + number * 40 - 25) for number in range(5)]):
        report.add(frame)
    figures = report.as_json()
    assert figures["frames"] == 5
    assert figures["fps"] == pytest.approx(25, abs=0.1)
    assert (figures["width"], figures["height"]) == (320, 192)
    assert figures["latency_ms_p50"] == 25


def test_default_motion_has_no_latency_and_is_counted_apart() -> None:
    report = ViewReport()
    for frame in received([trace(0, is_stalled=True), trace(0, is_stalled=True), None]):
        report.add(frame)
    figures = report.as_json()
    assert (figures["frames"], figures["idle_frames"], figures["latency_ms_p50"]) == (3, 2, None)


def test_a_report_of_nothing_has_no_figures() -> None:
    assert ViewReport().as_json()["fps"] is None


def test_a_frame_without_a_trace_has_none() -> None:
    with_one, without = received([trace(7), None])
    found = trace_of(with_one.picture)
    assert found is not None
    assert found.capture_ms == 7
    assert trace_of(without.picture) is None


def test_a_recording_holds_every_picture_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    frames = received([trace(number) for number in range(6)])
    with Recorder(path) as recorder:
        for frame in [*frames, frames[-1]]:  # one that comes twice is written once
            recorder.write(frame)
    with av.open(str(path)) as container:
        times = [picture.time for picture in container.decode(video=0)]
    assert times == pytest.approx([number * 0.04 for number in range(6)], abs=0.001)
