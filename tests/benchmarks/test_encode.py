"""`mien bench encode` runs both ways and reports what it measured."""

import json
from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner

from mien_bench.encode import compose, encode
from mien_generator.specimen import draw_speaker


def test_the_figures_are_complete_and_consistent() -> None:
    result = CliRunner().invoke(encode, ["--frames", "20", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert figures["frames"] == 20
    assert all(figures[key] > 0 for key in ("warp_ms", "compose_ms", "encode_ms", "ours_ms", "whole_frame_ms"))
    assert abs(figures["ratio"] - figures["ours_ms"] / figures["whole_frame_ms"]) < 0.01
    assert figures["ours_kbps"] > 50


def test_a_picture_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "avatar.png"
    cv2.imwrite(str(path), draw_speaker()[:, :900])
    result = CliRunner().invoke(encode, ["--frames", "10", "--avatar", str(path)])
    assert result.exit_code == 0, result.output
    assert "whole RGB frame" in result.output


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "avatar.png"
    path.write_bytes(b"no picture")
    result = CliRunner().invoke(encode, ["--avatar", str(path)])
    assert result.exit_code == 2
    assert "avatar.png is not a picture" in result.output


def test_the_drawn_speaker_fills_a_frame() -> None:
    picture = draw_speaker()
    assert picture.shape == (720, 1280, 3)
    assert picture.dtype == np.uint8


def test_composing_is_measured_beside_the_whole_frame() -> None:
    result = CliRunner().invoke(compose, ["--frames", "20", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert all(figures[key] > 0 for key in ("ours_ms", "whole_frame_ms", "copy_ms"))
    assert abs(figures["ratio"] - figures["ours_ms"] / figures["whole_frame_ms"]) < 0.01
