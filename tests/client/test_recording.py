"""What a viewer's report says, and that its recording can be played."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mien_client.recording import Recorder, ViewReport, is_synthetic, trace_of
from mien_client.tracing import FrameLife
from mien_client.whep import ReceivedFrame, ReceivedSound
from mien_shared.media.frame_trace import FrameTrace, insert_trace
from mien_shared.media.synthetic_mark import insert_mark


def received(traces: list[FrameTrace | None], first_unix_s: float = 1000.0, marked: bool = True) -> list[ReceivedFrame]:
    """Pictures as a receiver decodes them, one every 40 ms, some with a trace."""
    encoder = av.video.codeccontext.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.time_base, encoder.options = Fraction(1, 90_000), {"tune": "zerolatency", "preset": "ultrafast"}
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for number, trace in enumerate(traces):
        picture = av.VideoFrame.from_ndarray(np.full((192, 320, 3), 8 * number % 256, np.uint8), format="rgb24")
        picture.pts, picture.time_base = number * 3600, encoder.time_base
        for packet in encoder.encode(picture.reformat(format="yuv420p")):
            data = bytes(packet) if trace is None else insert_trace(bytes(packet), trace)
            again = av.Packet(insert_mark(data) if marked and packet.is_keyframe else data)
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


def test_a_report_says_whether_the_stream_is_marked_as_synthetic() -> None:
    for marked in (True, False):
        report = ViewReport()
        assert report.as_json()["synthetic"] is None
        for frame in received([None, None, None], marked=marked):
            report.add(frame)
        assert report.as_json()["synthetic"] is marked


def test_a_recording_keeps_mark_and_traces(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    with Recorder(path) as recorder:
        for frame in received([trace(number) for number in range(4)]):
            recorder.write(frame)
    with av.open(str(path)) as container:
        assert "Synthetic" in container.metadata["comment"]
        pictures = list(container.decode(video=0))
    assert [is_synthetic(picture) for picture in pictures] == [True, False, False, False]
    assert [found.capture_ms for found in map(trace_of, pictures) if found] == [0, 1, 2, 3]


def test_the_life_of_a_frame_adds_up() -> None:
    (frame,) = received([FrameTrace(999_950, 7, False, 1500, 6000, 500, 2000)])
    found = trace_of(frame.picture)
    assert found is not None
    life = FrameLife.of(frame, found)
    assert (life.sequence, life.total_ms, life.rest_ms) == (7, 50, 40)
    assert (life.key_frame, life.synthetic) == (True, True)
    assert life.sentence() == (
        "motion 7: wait 1.5, face 6, compose 0.5, encode 2 ms; 40 ms on the way, 50 ms in all; IDR, marked as synthetic"
    )


def test_default_motion_has_no_total() -> None:
    first, second = received([trace(0), trace(0, is_stalled=True)], marked=False)
    assert "WITHOUT the synthetic mark" in FrameLife.of(first, trace(0)).sentence()
    life = FrameLife.of(second, trace(0, is_stalled=True))
    assert (life.default_motion, life.total_ms, life.rest_ms, life.key_frame) == (True, None, None, False)
    assert life.sentence() == "default motion: wait 0, face 0, compose 0, encode 0 ms"


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


def spoken(captured_s: float | None, number: int, loud: bool, received_s: float = 0.0) -> ReceivedSound:
    """20 ms of 500 Hz, loud or silent."""
    tone = (8000 if loud else 0) * np.sin(2 * np.pi * 500 * np.arange(960) / 48_000)
    samples = np.repeat(tone.astype(np.int16), 2)[None]
    sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    sound.sample_rate = 48_000
    return ReceivedSound(sound, received_s, (2**32 - 5 * 960 + number * 960) % 2**32, captured_s)


def loudness(path: Path) -> NDArray[np.float64]:
    """The sound of a file in steps of 10 ms."""
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    steps = samples[: len(samples) // 480 * 480].astype(np.float64).reshape(-1, 480)
    return np.asarray(np.sqrt(np.mean(steps**2, axis=1)))


def test_a_voice_is_recorded_beside_the_pictures_of_its_moment(tmp_path: Path) -> None:
    """The pictures arrive 150 ms after the recording, the voice after 90; a word is said from 0.6 to 0.8 s."""
    pictures = received([trace(1_000_000 + number * 40 - 150) for number in range(50)])
    with Recorder(tmp_path / "out.mp4", with_sound=True) as recorder:
        for number, frame in enumerate(pictures):
            recorder.write(frame)
            for tick in (2 * number, 2 * number + 1):
                if 50 <= tick < 70:
                    continue  # a pause without packets
                captured_s = 999.85 + tick * 0.02
                report = None if tick < 20 else captured_s  # the first report comes later
                recorder.write_sound(spoken(report, tick, 30 <= tick < 40, captured_s + 0.09))
    loud = loudness(tmp_path / "out.mp4")
    assert len(loud) == pytest.approx(196, abs=10)
    (at,) = np.nonzero(loud > loud.max() / 2)
    assert at[0] / 100 == pytest.approx(0.6, abs=0.04) and at[-1] / 100 == pytest.approx(0.79, abs=0.04)


def test_without_reports_the_times_of_receipt_place_the_voice(tmp_path: Path) -> None:
    pictures = received([trace(0, is_stalled=True)] * 75)
    with Recorder(tmp_path / "out.mp4", with_sound=True) as recorder:
        for number, frame in enumerate(pictures):
            recorder.write(frame)
            for tick in (2 * number, 2 * number + 1):
                recorder.write_sound(spoken(None, tick, tick >= 120, frame.received_unix_s))
    loud = loudness(tmp_path / "out.mp4")
    (at,) = np.nonzero(loud > loud.max() / 2)
    assert at[0] / 100 == pytest.approx(2.4, abs=0.1)


def test_a_short_recording_has_its_voice_although_no_report_came(tmp_path: Path) -> None:
    with Recorder(tmp_path / "out.mp4", with_sound=True) as recorder:
        for number, frame in enumerate(received([trace(number) for number in range(20)])):
            recorder.write(frame)
            recorder.write_sound(spoken(None, number, True, frame.received_unix_s))
    assert loudness(tmp_path / "out.mp4").max() > 0.05


def test_a_recording_without_a_word_has_silence(tmp_path: Path) -> None:
    with Recorder(tmp_path / "out.mp4", with_sound=True) as recorder:
        for frame in received([trace(number) for number in range(60)]):
            recorder.write(frame)
    assert loudness(tmp_path / "out.mp4").max() == 0 and len(loudness(tmp_path / "out.mp4")) > 200
