"""The judgement tool on synthetic motion: fixed and following crops, jitter and lag, and the plots."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mien_encoder.judgement import FrameVerdict
from mien_judgement.__main__ import bundled_avatar, found, main
from mien_judgement.clip import Array, FoundMotion
from mien_judgement.drawing import judge, pictures, plot
from mien_judgement.smoothing import figures_of

AVATAR = bundled_avatar()
FRAMES = 150


def talking(sway: float = 0.05, noise: float = 0.001) -> FoundMotion:
    """Six seconds at 25 fps: a head that sways, and from 3 to 4 s is in a completely different place."""
    times_s = np.arange(FRAMES) / 25
    rows = np.tile(AVATAR.keypoints.rows().astype(np.float64), (FRAMES, 1, 1))
    rows[:, :, 0] += sway * np.clip(times_s - 1, 0, 1)[:, None] * np.sin(2 * np.pi * times_s / 1.5)[:, None]
    rows[75:100, :, :2] += 0.45
    rows += np.random.default_rng(1).normal(scale=noise, size=rows.shape)
    return FoundMotion(times_s, rows, np.tile([100.0, 50.0, 200.0], (FRAMES, 1)))


def in_pixels(motion: FoundMotion) -> Array:
    """The keypoints' places in the picture."""
    return np.asarray(motion.boxes[:, None, :2] + (motion.rows[:, :, :2] + 1) / 2 * motion.boxes[:, None, 2:])


def test_a_held_crop_shows_the_same_places_of_the_picture() -> None:
    motion = talking()
    np.testing.assert_allclose(motion.held().rows, motion.rows)
    boxes = motion.boxes.copy()
    boxes[80:] = (140.0, 20.0, 300.0)
    followed = FoundMotion(motion.times_s, motion.rows, boxes)
    np.testing.assert_allclose(in_pixels(followed.held()), in_pixels(followed))
    np.testing.assert_allclose(followed.held().rows[80:, :, 2:], 1.5 * motion.rows[80:, :, 2:])


def test_the_longest_run_with_a_face() -> None:
    motion = talking()
    motion.rows[[10, 60, 61]] = np.nan
    run = motion.longest_with_a_face()
    assert len(run) == FRAMES - 62
    assert run.times_s[0] == pytest.approx(62 / 25)
    assert motion.at(10) is None
    assert motion.at(11) is not None


def test_the_figures_say_what_each_smoother_does() -> None:
    still = talking(sway=0.0)
    noise = FoundMotion(still.times_s[:60], still.rows[:60], still.boxes[:60])
    figures = {row.name: row for row in figures_of(talking(), noise)}
    none, euro, centred = figures["none"], figures["One-Euro"], figures["Savitzky-Golay 5, cubic, centred"]
    assert none.lag_frames == pytest.approx(0, abs=0.05)
    assert centred.lag_frames == pytest.approx(2, abs=0.1)
    assert 0 < euro.lag_frames < 1.5
    assert euro.noise_px < 0.6 * none.noise_px
    assert centred.noise_px < 0.8 * none.noise_px
    assert figures["One-Euro, dead zones"].noise_px < 0.3 * euro.noise_px


def test_a_span_far_away_is_rejected_and_drawn(tmp_path: Path) -> None:
    clip = judge(talking(), AVATAR.keypoints)
    ((first, end),) = clip.spans(FrameVerdict.REJECTED)
    assert 75 <= first <= 78
    assert 100 <= end <= 108
    assert clip.share(FrameVerdict.REJECTED) == pytest.approx((end - first) / FRAMES)
    plot({"held": clip, "followed": clip}, tmp_path / "plot.png")
    pictures(clip, AVATAR, 3, tmp_path / "pictures.png")
    for name in ("plot.png", "pictures.png"):
        drawn = cv2.imread(str(tmp_path / name))
        assert drawn is not None
        assert drawn.std() > 10


def test_what_find_keeps_is_taken_in_place_of_the_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    motion, kept = talking(), tmp_path / "kept.npz"
    np.savez(kept, times_s=motion.times_s, rows=motion.rows, boxes=motion.boxes)
    np.testing.assert_array_equal(found(kept).rows, motion.rows)
    assert main(["l2", str(kept)]) == 0
    assert "| kept | 150 |" in capsys.readouterr().out
