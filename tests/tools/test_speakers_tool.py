"""The tool for recorded speakers: what it makes of a voice, and the speakers that come with the client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mien_client.speaking import ASSETS
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack
from mien_speakers.join import FRAME_SAMPLES, cut, joined
from mien_speakers.loudness import TooQuiet, at_loudness, loudness_lufs
from mien_speakers.shift import RATE_HZ, NoVoice, Samples, altered, pitch_hz
from mien_speakers.sound import sound_of, write_opus
from mien_speakers.step import step_of


def vowel(pitch: float, formants_hz: tuple[float, ...], seconds: float = 1.0) -> Samples:
    """Pulses through resonances, which swell four times a second as syllables do."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = np.zeros_like(time_s)
    for harmonic in range(1, int(5000 / pitch)):
        hz = harmonic * pitch
        gain = sum(1 / (1 + ((hz - formant) / 80) ** 2) for formant in formants_hz)
        sound += gain * np.sin(2 * np.pi * hz * time_s)
    return np.asarray(0.1 * sound * (1.05 - np.cos(2 * np.pi * 4 * time_s)))


def strongest_hz(samples: Samples, low: float, high: float, pitch: float) -> float:
    """The centre of the energy around a resonance, by harmonics."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    near = (hz > low) & (hz < high) & (np.abs(hz / pitch - np.round(hz / pitch)) < 0.2)
    return float((power[near] * hz[near]).sum() / power[near].sum())


@pytest.mark.parametrize(("pitch_to", "factor"), [(140.0, 1.15), (90.0, 0.9)])
def test_pitch_and_formants_change_apart_from_each_other(pitch_to: float, factor: float) -> None:
    original = vowel(115, (700, 2200))
    voice = altered(original, pitch_to, factor)
    assert len(voice) == len(original)
    assert pitch_hz(original) == pytest.approx(115, rel=0.02)
    assert pitch_hz(voice) == pytest.approx(pitch_to, rel=0.03)
    before, after = strongest_hz(original, 1700, 2700, 115), strongest_hz(voice, 1700, 2900, pitch_to)
    assert after / before == pytest.approx(factor, abs=0.04)


def test_an_altered_voice_keeps_its_rhythm() -> None:
    original = vowel(115, (700, 2200))
    voice = altered(original, 150, 1.1)
    before, after = ([np.sqrt(np.mean(part**2)) for part in np.split(sound, 100)] for sound in (original, voice))
    lags = [float(np.corrcoef(before[5:-5], np.roll(after, -lag)[5:-5])[0, 1]) for lag in range(-5, 6)]
    assert int(np.argmax(lags)) - 5 == 0  # of 10 ms each
    assert max(lags) > 0.95


def test_a_sound_without_a_voice_cannot_be_altered() -> None:
    with pytest.raises(NoVoice, match=r"^the sound has no voiced part$"):
        altered(np.zeros(RATE_HZ), 120, 1.0)


def test_loudness_is_that_of_the_standard() -> None:
    """BS.1770-5: a sine of 997 Hz and full scale in one channel has -3.01 LUFS."""
    sine = np.sin(2 * np.pi * 997 * np.arange(3 * RATE_HZ) / RATE_HZ)
    assert loudness_lufs(sine) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(np.concatenate([sine, 0 * sine])) == pytest.approx(-3.2, abs=0.3)  # silence is gated
    assert loudness_lufs(at_loudness(0.01 * sine, -20)) == pytest.approx(-20, abs=0.1)
    with pytest.raises(TooQuiet):
        loudness_lufs(np.zeros(RATE_HZ))


def test_clips_join_as_their_motion_does_and_keep_their_power() -> None:
    noise = np.random.default_rng(1).normal(size=(2, 20 * FRAME_SAMPLES))
    sound = joined(list(noise), 5)
    assert len(sound) == (20 + 20 - 2 * 5) * FRAME_SAMPLES
    assert np.std(sound[10 * FRAME_SAMPLES : 15 * FRAME_SAMPLES]) == pytest.approx(1, abs=0.05)
    assert len(cut(noise[0], 0.08, 20)) == 20 * FRAME_SAMPLES


def test_a_voice_that_is_late_is_found_to_be_late() -> None:
    beats = np.zeros(30 * 20)
    beats[np.random.default_rng(3).choice(30 * 20, 60, replace=False)] = 1
    opening = np.convolve(beats, np.hanning(9), "same")
    packets = []
    for number, value in enumerate(opening):
        rest = Keypoints.at_rest()
        rest.points[FaceKeypoint.LOWER_LIP, 1] = 0.05 * value
        packets.append(MotionPacket(number, round(number * 1000 / 30), rest))
    loud = np.repeat(opening, FRAME_SAMPLES)
    noise = np.random.default_rng(4).normal(size=len(loud))
    found = step_of(MotionTrack(tuple(packets)), np.roll(loud * noise, RATE_HZ // 10))
    assert found.voice_late_s == pytest.approx(0.1, abs=0.03)
    assert found.correlation > 0.8 > found.unmoved


def test_a_voice_is_written_with_its_length(tmp_path: Path) -> None:
    sound = vowel(120, (600, 1800), 0.9637)
    write_opus(tmp_path / "voice.ogg", sound, 24_000)
    again = sound_of(tmp_path / "voice.ogg")
    assert len(again) == len(sound)
    assert pitch_hz(again) == pytest.approx(120, rel=0.03)


@pytest.mark.parametrize("name", ["speaker", "speaker-2", "speaker-3"])
def test_the_client_s_speakers_have_a_voice_in_step(name: str) -> None:
    track, path = MotionTrack.load(ASSETS / f"{name}.motion"), ASSETS / f"{name}.ogg"
    voice = sound_of(path)
    assert path.stat().st_size < 150_000
    assert len(voice) == len(track.packets) * FRAME_SAMPLES
    assert loudness_lufs(voice) == pytest.approx(-20, abs=1)
    step = step_of(track, voice)
    assert abs(step.voice_late_s) <= 0.03
    assert step.unmoved > 0.3
