"""Recorded voices as a microphone gives them: in step, in a loop, and never late."""

from __future__ import annotations

import time
import wave
from pathlib import Path

import numpy as np
import pytest

from mien_client.outgoing_voice import OutgoingVoice
from mien_client.sound import FRAME_SAMPLES, RATE_HZ, FileSound, LoopedVoice, has_sound, read_sound
from mien_client.sources import SourceError
from mien_client.speaking import DEMO_TRACK, SPEAKERS, voice_of
from mien_shared.wire.track import MotionTrack

#: A turn that is no whole number of frames.
TURN = 10 * FRAME_SAMPLES + 431


@pytest.fixture
def ramp(tmp_path: Path) -> str:
    """Samples that say where they are."""
    with wave.open(str(tmp_path / "ramp.wav"), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(np.arange(TURN).astype("<i2").tobytes())
    return str(tmp_path / "ramp.wav")


async def test_a_loop_stays_in_step_with_its_track(ramp: str) -> None:
    voice = LoopedVoice(ramp)
    voice.begin(time.monotonic() - 0.1)
    frames = [await voice.recv() for _ in range(30)]
    for frame in frames:
        assert frame.pts is not None
        assert frame.to_ndarray()[0, 0] == frame.pts % TURN
        assert frame.to_ndarray()[0, -1] == (frame.pts + FRAME_SAMPLES - 1) % TURN


async def test_a_loop_skips_what_is_late(ramp: str) -> None:
    voice = LoopedVoice(ramp)
    voice.begin(time.monotonic() - 3600)
    first = await voice.recv()
    assert first.pts is not None and first.pts / RATE_HZ == pytest.approx(3600, abs=60)
    assert first.to_ndarray()[0, 0] == first.pts % TURN


async def test_a_file_skips_what_is_late(ramp: str) -> None:
    sound = FileSound(ramp, loop=True)
    sound.begin()
    first = await sound.recv()
    assert first.pts == 0
    sound._start_s -= 5
    late = await sound.recv()
    assert late.pts is not None and late.pts / RATE_HZ >= 5


async def test_a_muted_voice_gives_nothing_and_keeps_its_time(ramp: str) -> None:
    source = LoopedVoice(ramp)
    source.begin(time.monotonic())
    left = [True] * 20

    def is_muted() -> bool:
        return bool(left and left.pop())

    voice = OutgoingVoice(source, is_muted)
    frame = await voice.recv()
    assert not left and frame.pts is not None and frame.pts >= 20 * FRAME_SAMPLES
    assert voice.first_pts == frame.pts
    voice.stop()
    assert source.readyState == "live", "the next connection needs it"


def test_the_rest_of_a_file_is_kept_if_it_is_asked_for(ramp: str) -> None:
    assert sum(frame.samples for frame in read_sound(ramp)) == 10 * FRAME_SAMPLES
    assert sum(frame.samples for frame in read_sound(ramp, keep_rest=True)) == TURN
    assert has_sound(ramp)


def test_files_without_sound_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        LoopedVoice(str(tmp_path / "absent.ogg"))


def test_every_recorded_speaker_has_a_voice_of_its_track_s_length() -> None:
    for speaker in SPEAKERS:
        assert voice_of(speaker.track) == speaker.voice
        packets = len(MotionTrack.load(speaker.track).packets)
        samples = sum(frame.samples for frame in read_sound(str(speaker.voice), keep_rest=True))
        assert samples == packets * RATE_HZ // 30
    assert voice_of(DEMO_TRACK.with_name("README.md")) is None
