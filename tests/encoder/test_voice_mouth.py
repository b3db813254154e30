"""The mouth by voice: it opens with a voice, stays shut in silence and in noise, and never jumps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mien_encoder.voice_mouth import HOP_S, SILENCE_DB, VoiceBands, VoiceMouth

RATE_HZ = 48_000
Sound = NDArray[np.float64]
VOWEL = ((150, 0.5), (750, 0.4), (1150, 0.3), (2500, 0.05))
HISS = ((4800, 0.4), (5300, 0.35), (5700, 0.3))


def tones(seconds: float, parts: tuple[tuple[float, float], ...], gain: float = 0.3) -> Sound:
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(gain * sum(amplitude * np.sin(2 * np.pi * hertz * times_s) for hertz, amplitude in parts))


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE_HZ))


def noise(seconds: float, amplitude: float) -> Sound:
    return np.random.default_rng(2).normal(scale=amplitude, size=round(seconds * RATE_HZ))


def words(seconds: float, gain: float = 0.3) -> Sound:
    """Syllables with pauses, and a word's pause each second."""
    word = [tones(0.16, VOWEL, gain), tones(0.06, HISS, gain), tones(0.2, VOWEL, gain), silence(0.08)]
    return np.concatenate([*word, *word[:3], silence(0.3)] * round(seconds))[: round(seconds * RATE_HZ)]


def openings(*sounds: Sound) -> list[float]:
    bands, mouth, heard = VoiceBands(RATE_HZ), VoiceMouth(), []
    for number, levels in enumerate(bands.push(np.concatenate(sounds))):
        mouth.hear(levels, number * HOP_S)
        heard.append(mouth.opening(number * HOP_S))
    return heard


def test_silence_keeps_it_shut() -> None:
    assert max(openings(silence(2))) == 0


def test_a_voice_opens_it_and_pauses_shut_it() -> None:
    heard = openings(silence(0.5), words(4))
    talking = heard[-100:]
    assert max(talking) > 0.7
    assert min(talking) < 0.05
    assert 0.2 < float(np.mean(talking)) < 0.8


def test_a_hiss_opens_it_less_than_a_vowel_as_loud() -> None:
    def loud(parts: tuple[tuple[float, float], ...]) -> Sound:
        sound = tones(0.4, parts)
        return np.asarray(sound * 0.1 / np.sqrt(np.mean(sound**2)))

    before = (silence(0.5), words(2), silence(0.3))
    vowel, hiss = (max(openings(*before, loud(parts))[-15:]) for parts in (VOWEL, HISS))
    assert hiss < 0.75 * vowel


def test_a_quiet_microphone_opens_it_as_far_as_a_loud_one() -> None:
    quiet, loud = (openings(words(12, gain))[-200:] for gain in (0.01, 0.5))
    assert float(np.mean(quiet)) == pytest.approx(float(np.mean(loud)), abs=0.12)


@pytest.mark.parametrize("amplitude", [0.0003, 0.003, 0.02])
def test_steady_noise_lets_it_shut_within_seconds(amplitude: float) -> None:
    heard = openings(noise(20, amplitude))
    assert max(heard[-200:]) < 0.05


def test_a_voice_over_noise_opens_it() -> None:
    speech = words(6)
    heard = openings(noise(12, 0.002), speech + noise(6, 0.002))
    assert max(heard[-150:]) > 0.6


def test_it_moves_no_faster_than_lips_do() -> None:
    """The fastest of 24 seconds of real speech: 0.5 from one frame to the next (99th percentile of each clip)."""
    heard = np.array(openings(silence(0.5), words(6), tones(0.3, VOWEL, 0.9)))
    assert np.abs(np.diff(heard)).max() < 0.75  # in one hop, at the loudest onset that there is


def test_it_shuts_when_the_microphone_is_off() -> None:
    bands, mouth = VoiceBands(RATE_HZ), VoiceMouth()
    for number, levels in enumerate(bands.push(tones(0.5, VOWEL))):
        mouth.hear(levels, number * HOP_S)
    last_s = (round(0.5 / HOP_S) - 1) * HOP_S
    before = mouth.opening(last_s)
    assert before > 0.5
    assert mouth.opening(last_s + 0.1) == before
    assert mouth.opening(last_s + 0.2) < 0.2 * before
    assert mouth.opening(last_s + 1.0) < 1e-6


def test_it_does_not_matter_how_the_samples_are_cut() -> None:
    sound = words(2)
    whole = VoiceBands(RATE_HZ).push(sound)
    bands, parts = VoiceBands(RATE_HZ), list[tuple[float, ...]]()
    for cut in np.array_split(sound, 777):
        parts += bands.push(cut)
    assert len(whole) == 100
    np.testing.assert_allclose(parts, whole)


def test_a_band_measures_the_mean_square_of_its_tones() -> None:
    (*_, last) = VoiceBands(RATE_HZ).push(tones(0.2, ((1000, 1.0),), gain=0.1))
    low, middle, high = last
    assert middle == pytest.approx(10 * np.log10(0.1**2 / 2), abs=0.1)
    assert low < middle - 50 and high < middle - 50
    assert VoiceBands(RATE_HZ).push(silence(0.02)) == [(SILENCE_DB,) * 3]


def test_a_rate_too_low_for_the_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="a voice needs 16000 samples a second or more, not 8000"):
        VoiceBands(8000)
