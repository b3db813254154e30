from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import SIZE, face, keypoints, random_arrays

from mien_evaluation.model_cli import model
from mien_generator.face.onnx.calibration import Clip
from mien_generator.face.onnx.files import ModelFiles
from mien_shared.keypoints import NUM_KEYPOINTS


def _labelled(folder: Path, frames: int) -> Path:
    folder.mkdir()
    np.save(folder / "frames.npy", np.stack([face(seed).rgb for seed in range(frames)]))
    np.save(folder / "keypoints.npy", np.stack([keypoints(seed).rows() for seed in range(frames)]))
    return folder


def test_a_clip_is_its_first_face_and_frames_evenly_taken(tmp_path: Path) -> None:
    folder = _labelled(tmp_path / "clip", 8)
    clip = Clip.read(folder, 4)
    np.testing.assert_array_equal(clip.avatar.rgb, face(0).rgb)
    assert list(clip.driving) == [keypoints(seed) for seed in (0, 2, 4, 6)]
    assert list(Clip.read(folder, 4, offset=0.5).driving) == [keypoints(seed) for seed in (1, 3, 5, 7)]


def test_frames_without_a_face_are_left_out(tmp_path: Path) -> None:
    folder = _labelled(tmp_path / "clip", 4)
    rows = np.load(folder / "keypoints.npy")
    rows[[0, 2]] = np.nan
    np.save(folder / "keypoints.npy", rows)
    clip = Clip.read(folder, 9)
    np.testing.assert_array_equal(clip.avatar.rgb, face(1).rgb)
    assert list(clip.driving) == [keypoints(1), keypoints(3)]


def test_folders_that_are_no_clips(tmp_path: Path) -> None:
    folder = _labelled(tmp_path / "clip", 2)
    np.save(folder / "keypoints.npy", np.full((2, NUM_KEYPOINTS, 6), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"^clip has no frame with a face$"):
        Clip.read(folder, 2)
    np.save(folder / "frames.npy", np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match=r"^clip does not contain labelled crops$"):
        Clip.read(folder, 2)


def test_calibrate_writes_ranges_and_an_8_bit_graph(exported: Path, tmp_path: Path) -> None:
    weights = tmp_path / "new.safetensors"
    weights.write_bytes(exported.read_bytes())
    folder = _labelled(tmp_path / "clip", 4)
    arguments = ["calibrate", weights, "--clip", folder, "--frames", 2, "--size", SIZE, "--threads", 1]
    result = CliRunner().invoke(model, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("new.safetensors: ")
    assert " ranges from 2 frames; PSNR of 8-bit against float32 on 2 other frames: " in result.stdout
    ranges = ModelFiles.read(weights).ranges
    assert ranges is not None
    # ReLU begins at zero, or integers would not clip what it clips; the stream that blocks add to has both signs.
    for point, (low, high) in ranges.items():
        signed = point in {"motion.input", "up.0", "final.columns"} or point.endswith(".out")
        assert (low < 0) == signed, point
        assert high > 0


def test_export_writes_graphs_that_load(exported: Path, tmp_path: Path) -> None:
    weights = tmp_path / "new.safetensors"
    random_arrays(ModelFiles.read(exported).weights.config, 3).write(weights)
    result = CliRunner().invoke(model, ["export", str(weights)])
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        str(tmp_path / f"new.{part}") for part in ("prepare.onnx", "animate.onnx", "sha256")
    ]
    assert ModelFiles.read(weights).ranges is None


def test_export_of_what_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"short")
    result = CliRunner().invoke(model, ["export", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 1
    assert result.stderr == "Error: x.safetensors ends after 5 bytes, inside its header\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]
