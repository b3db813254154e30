"""Smoothers: what each takes away, what it costs, and what none of them takes in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mien_encoder.smoothing import (
    DeadZones,
    OneEuro,
    SavitzkyGolay,
    Smoother,
    UnsmoothableValue,
    Unsmoothed,
    Values,
)
from mien_shared.keypoints import NUM_KEYPOINTS

SMOOTHERS: dict[str, Callable[[], Smoother]] = {
    "unsmoothed": Unsmoothed,
    "one-euro": OneEuro,
    "savitzky-golay": SavitzkyGolay,
    "one-euro, dead zones": lambda: DeadZones(OneEuro()),
    "savitzky-golay, dead zones": lambda: DeadZones(SavitzkyGolay()),
}
every_smoother = pytest.mark.parametrize("make", SMOOTHERS.values(), ids=SMOOTHERS.keys())

FACE = np.random.default_rng(1).uniform(-0.5, 0.5, (NUM_KEYPOINTS, 6))
#: A landmark finder's own unrest on a still face: a fifth of a pixel of 384.
NOISE = np.random.default_rng(2).normal(scale=0.001, size=(150, NUM_KEYPOINTS, 6))


def run(smoother: Smoother, values: Values, start_s: float = 100.0) -> Values:
    """All of a stream at 30 fps, each value given back at its own frame: what a delay shifted is shifted back."""
    out = np.stack([smoother.filter(value, start_s + i / 30) for i, value in enumerate(values)])
    return out[smoother.delay_frames :]


def still(frames: int) -> Values:
    return np.tile(FACE, (frames, 1, 1))


def moving(frames: int, crop_units_a_second: float) -> Values:
    values = still(frames)
    values[:, :, 0] += (np.arange(frames) / 30 * crop_units_a_second)[:, None]
    return values


class TestEverySmoother:
    @every_smoother
    def test_leaves_what_is_still_as_it_is(self, make: Callable[[], Smoother]) -> None:
        np.testing.assert_allclose(run(make(), still(40)), still(40)[: 40 - make().delay_frames], atol=1e-12)

    @every_smoother
    def test_arrives_where_a_move_ends(self, make: Callable[[], Smoother]) -> None:
        values = np.concatenate([still(20), still(60) + 0.2])
        out = run(make(), values)
        np.testing.assert_allclose(out[-1], values[-1], atol=1e-3)
        assert out.max() < values.max() + 0.02, "and goes hardly beyond"

    @every_smoother
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_takes_nothing_in_that_is_not_finite(self, make: Callable[[], Smoother], bad: float) -> None:
        smoother, undisturbed = make(), make()
        broken = FACE.copy()
        broken[3, 4] = bad
        for i, value in enumerate(NOISE[:10]):
            expected = undisturbed.filter(FACE + value, i / 30)
            with pytest.raises(UnsmoothableValue, match=r"^the value to smooth is not finite$"):
                smoother.filter(broken, i / 30)
            np.testing.assert_array_equal(smoother.filter(FACE + value, i / 30), expected)

    @every_smoother
    @pytest.mark.parametrize("later_s", [0.0, -5.0])
    def test_time_that_does_not_advance_starts_afresh(self, make: Callable[[], Smoother], later_s: float) -> None:
        smoother = make()
        run(smoother, moving(30, 1.0), start_s=0.0)
        np.testing.assert_allclose(smoother.filter(-FACE, 29 / 30 + later_s), -FACE, atol=1e-12)

    @every_smoother
    def test_reset_forgets(self, make: Callable[[], Smoother]) -> None:
        smoother = make()
        run(smoother, moving(30, 1.0), start_s=0.0)
        smoother.reset()
        np.testing.assert_allclose(smoother.filter(-FACE, 1.0), -FACE, atol=1e-12)

    @every_smoother
    def test_keeps_no_hold_of_what_it_was_given_or_gave(self, make: Callable[[], Smoother]) -> None:
        smoother, undisturbed = make(), make()
        for i, noise in enumerate(NOISE[:20]):
            given = FACE + noise
            out = smoother.filter(given, i / 30)
            np.testing.assert_array_equal(out, undisturbed.filter(FACE + noise, i / 30))
            given[:] = out[:] = 99.0


class TestOneEuro:
    def test_steadies_a_face_at_rest(self) -> None:
        assert run(OneEuro(), FACE + NOISE)[30:].std(axis=0).mean() < 0.6 * NOISE.std()

    def test_follows_a_fast_move_closer_than_a_slow_one(self) -> None:
        def lag_s(speed: float) -> float:
            values = moving(60, speed)
            return float((values - run(OneEuro(), values))[-1, 0, 0] / speed)

        assert lag_s(2.0) < 0.5 * lag_s(0.05)
        assert lag_s(0.05) < 2.1 / 30

    def test_refuses_another_shape(self) -> None:
        euro = OneEuro()
        euro.filter(np.zeros(3), 0.0)
        with pytest.raises(UnsmoothableValue, match=r"shape \(4,\), the previous one \(3,\)$"):
            euro.filter(np.zeros(4), 0.1)


class TestSavitzkyGolay:
    def test_gives_back_any_cubic_two_frames_late(self) -> None:
        t = np.arange(30) / 10
        values = np.stack([np.full((NUM_KEYPOINTS, 6), 0.3 * x**3 - x**2 + 0.5 * x) for x in t])
        np.testing.assert_allclose(run(SavitzkyGolay(), values)[4:], values[4:-2], atol=1e-9)

    def test_takes_away_what_its_weights_say(self) -> None:
        ratio = run(SavitzkyGolay(), FACE + NOISE)[10:].std(axis=0).mean() / NOISE.std()
        assert ratio == pytest.approx(np.sqrt(17 / 35), abs=0.05)  # the middle weight is the variance that is left

    def test_declares_its_delay(self) -> None:
        blinked = still(20)
        blinked[10] += 1.0
        smoother = SavitzkyGolay()
        out = np.stack([smoother.filter(value, i / 30) for i, value in enumerate(blinked)])
        assert int(out[:, 0, 0].argmax()) == 10 + SavitzkyGolay.delay_frames
        assert DeadZones(SavitzkyGolay()).delay_frames == 2


class TestDeadZones:
    def test_a_still_face_with_noise_is_quite_still(self) -> None:
        out = run(DeadZones(OneEuro()), FACE + NOISE)
        assert (np.ptp(out[60:], axis=0) == 0).all(axis=1).sum() >= 8, "nearly every keypoint is held"
        assert np.abs(out - FACE).max() < 0.004

    def test_one_keypoint_moves_and_the_others_stay(self) -> None:
        values = still(90)
        values[45:, 6, 1] += np.linspace(0, 0.1, 45)
        out = run(DeadZones(Unsmoothed()), values)
        np.testing.assert_array_equal(np.delete(out, 6, axis=1), np.delete(still(90), 6, axis=1))
        np.testing.assert_allclose(out[-1, 6, 1], values[-1, 6, 1], atol=2e-3)

    def test_a_blink_lets_an_eye_go_at_once(self) -> None:
        values = still(90)
        values[60:64, 2, 5] -= 0.9
        lid = run(DeadZones(Unsmoothed()), values)[:, 2, 5] - FACE[2, 5]
        assert lid[60] == pytest.approx(-0.9, abs=0.031)
        assert lid[66] == pytest.approx(0, abs=0.031)

    def test_being_let_go_is_no_jump(self) -> None:
        values = moving(120, 0.03)
        values[:60] = values[60]
        steps = np.abs(np.diff(run(DeadZones(Unsmoothed()), values)[:, 0, 0]))
        assert steps.max() < 0.03 / 30 + 0.006 * (1 - np.exp(-1 / 3)) + 1e-9

    def test_hysteresis_a_keypoint_let_go_is_not_held_while_it_goes_on(self) -> None:
        values = moving(90, 0.05)
        out = run(DeadZones(Unsmoothed()), values)
        assert (np.diff(out[:, 0, 0]) > 0).all()

    def test_refuses_what_is_no_face(self) -> None:
        with pytest.raises(
            UnsmoothableValue, match=r"^dead zones need ten rows of six values, not an array of shape \(3,\)"
        ):
            DeadZones(OneEuro()).filter(np.zeros(3), 0.0)
