from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.animation import ClipWriter, read_picture
from mien_generator.face.fomm.checkpoint import random_weights, read_weights, write_weights
from mien_generator.face.fomm.cli import model
from mien_generator.face.fomm.config import FommConfig
from mien_shared.avatars import AvatarRecord, FaceBox
from mien_shared.motion import Keypoints, MotionPacket


@pytest.fixture
def weights(small_config: FommConfig, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    write_weights(random_weights(small_config), path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "source.png"
    waves = 127 + 100 * np.outer(np.sin(np.arange(300) / 8), np.sin(np.arange(400) / 8))
    cv2.imwrite(str(path), np.stack([waves.astype(np.uint8)] * 3, axis=-1))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "driving.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
    with ClipWriter(path, Fraction(25)) as writer:
        for frame in noise:
            writer.write(frame)
    return path


@pytest.fixture
def track(tmp_path: Path) -> Path:
    path = tmp_path / "speech.motion"
    motions = [Keypoints.at_rest() for _ in range(4)]
    motions[2].points[:] = 0.1
    path.write_bytes(b"".join(MotionPacket(i, 33 * i, motion).pack() for i, motion in enumerate(motions)))
    return path


def _mien_model(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


# --- info -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "gmac", "mparameters"), [("half", 31.42, 16.17), ("full", 120.70, 45.58)], ids=["half", "full"]
)
def test_info_json_gives_the_published_figures(width: str, gmac: float, mparameters: float) -> None:
    result = _mien_model("info", "--size", 384, "--width", width, "--json")
    assert result.exit_code == 0
    counted = json.loads(result.stdout)
    assert (counted["gmac"], counted["mparameters"]) == (gmac, mparameters)
    assert counted["macs"] == counted["macs_per_avatar"] + counted["macs_per_frame"]
    assert counted["macs"] == sum(part["macs"] for part in counted["parts"])
    assert counted["keypoint_detector"]["macs"] > 0


def test_info_table() -> None:
    assert _mien_model("info").stdout.splitlines() == [
        "First Order Motion Model, half width, 384x384",
        "  part                        once per          MAC    parameters",
        "  source features             avatar         6.13 G        0.10 M",
        "  dense motion                frame          2.85 G       14.20 M",
        "  bottleneck and up blocks    frame         22.44 G        1.87 M",
        "  generator                                 31.42 G       16.17 M",
        "    of it per frame                         25.29 G",
        "  keypoint detector (apart)   picture        2.92 G       14.22 M",
    ]


def test_info_counts_a_weights_file(weights: Path, small_config: FommConfig) -> None:
    counted = json.loads(_mien_model("info", "--size", 64, "--weights", weights, "--json").stdout)
    assert counted["model"] == "small.safetensors"
    assert counted["parameters"] == sum(p.numel() for p in read_weights(weights).generator().parameters())


def test_info_at_a_size_that_does_not_fit() -> None:
    result = _mien_model("info", "--size", 300)
    assert result.exit_code == 1
    assert result.stderr == "Error: this model makes pictures whose side is a multiple of 128, not 300\n"


# --- without torch ----------------------------------------------------------------------------------------------------


def test_the_command_group_imports_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from mien_generator.face.fomm.cli import model\n"
        "model(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "animate" in done.stdout


def test_a_command_that_needs_torch_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, weights: Path, picture: Path, clip: Path, tmp_path: Path
) -> None:
    _without_torch(monkeypatch)
    out = tmp_path / "out"
    for command in (
        ["info"],
        ["import", weights, "--out", out],
        ["animate", "--source", picture, "--driving", clip, "--weights", weights, "--out", out],
    ):
        result = _mien_model(*command)
        assert result.exit_code == 1
        assert result.stderr == "Error: this command needs torch: pip install 'mien-generator[torch]'\n"
    assert not out.exists()


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_config", [True, False], ids=["config given", "config inferred"])
def test_import_writes_weights_that_load(small_config: FommConfig, tmp_path: Path, with_config: bool) -> None:
    weights = random_weights(small_config)
    states = {"generator": weights.generator().state_dict(), "kp_detector": weights.keypoint_detector().state_dict()}
    torch.save(states, tmp_path / "vox.pth.tar")
    (tmp_path / "vox.json").write_text(small_config.to_json())
    config = ["--config", tmp_path / "vox.json"] if with_config else []
    out = tmp_path / "vox.safetensors"
    result = _mien_model("import", tmp_path / "vox.pth.tar", *config, "--out", out)
    assert result.exit_code == 0, result.output
    assert read_weights(out).sha256 == weights.sha256
    assert result.stdout.endswith(f"sha256 {weights.sha256}\n")


def test_import_refuses_what_is_no_checkpoint(picture: Path, tmp_path: Path) -> None:
    result = _mien_model("import", picture, "--out", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr == "Error: source.png is not a checkpoint that can be read without running code\n"
    assert not (tmp_path / "out.safetensors").exists()


def test_import_refuses_a_configuration_that_is_none(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    result = _mien_model("import", picture, "--config", tmp_path / "c.json", "--out", tmp_path / "out.safetensors")
    assert result.stderr == "Error: model configuration: common_params is missing\n"


# --- animate ----------------------------------------------------------------------------------------------------------


def test_animate_shows_source_driving_and_result(weights: Path, picture: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    result = _mien_model(
        "animate", "--source", picture, "--driving", clip, "--weights", weights, "--size", 256, "--out", out
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 3 frames, 25 a second\n"
    frames = _frames(out)
    assert [frame.shape for frame in frames] == [(256, 768, 3)] * 3
    source = read_picture(picture)[:, 50:350]
    shown = cv2.resize(source, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(frames[0][:, :256].astype(int) - shown).mean() < 3


def test_animate_result_only(weights: Path, picture: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    options = ["--weights", weights, "--size", 256, "--out", out, "--result-only", "--crop", "10,20,200"]
    assert _mien_model("animate", "--source", picture, "--driving", clip, *options).exit_code == 0
    assert _frames(out)[0].shape == (256, 256, 3)


def test_animate_warp_moves_the_picture_by_a_track(picture: Path, track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    options = ["--engine", "warp", "--size", 256, "--out", out]
    result = _mien_model("animate", "--source", picture, "--driving", track, *options)
    assert result.exit_code == 0, result.output
    frames = _frames(out)
    assert [frame.shape for frame in frames] == [(256, 512, 3)] * 4
    at_rest = np.abs(frames[0][:, :256].astype(int) - frames[0][:, 256:]).mean()
    assert at_rest < 2, "a track at rest shows the source itself"


def test_animate_warp_takes_crop_and_keypoints_of_a_stored_avatar(picture: Path, track: Path, tmp_path: Path) -> None:
    framed = [(0.1 * k - 0.5, 0.0, 1.0, 0.0, 0.0, 1.0) for k in range(10)]
    box = FaceBox(x=100, y=50, size=200)
    record = AvatarRecord(avatar_id="a", width=400, height=300, face_box=box, keypoints=framed)
    (tmp_path / "record.json").write_text(record.model_dump_json())
    out = tmp_path / "out.mp4"
    arguments = ["animate", "--source", picture, "--driving", track, "--engine", "warp", "--size", 256, "--out", out]
    assert _mien_model(*arguments, "--record", tmp_path / "record.json").exit_code == 0
    recorded = _frames(out)
    shown = cv2.resize(read_picture(picture)[50:250, 100:300], (256, 256), interpolation=cv2.INTER_LINEAR)
    assert np.abs(recorded[0][:, :256].astype(int) - shown).mean() < 3

    assert _mien_model(*arguments, "--crop", "100,50,200").exit_code == 0
    framed_face = _frames(out)
    apart = np.abs(recorded[2].astype(int) - framed_face[2])
    assert apart[:, :256].max() < 10, "the same crop, but for the coding"
    assert apart[:, 256:].max() > 30, "moved about other keypoints"


def test_animate_refuses_what_does_not_go_together(
    weights: Path, picture: Path, clip: Path, track: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out.mp4", tmp_path / "nowhere" / "out.mp4"
    base = ["animate", "--source", picture]
    cases: list[tuple[list[object], str]] = [
        (
            ["--driving", track, "--weights", weights, "--out", out],
            "the fomm engine is driven by a clip: a motion track's keypoints are not its own",
        ),
        (["--driving", clip, "--out", out], "the fomm engine needs --weights, a file that 'mien model import' wrote"),
        (
            ["--driving", clip, "--engine", "warp", "--out", out],
            "the warp engine is driven by a motion track (.motion), not by driving.mp4",
        ),
        (["--driving", picture, "--weights", picture, "--out", out], "source.png is not a safetensors file"),
        (
            ["--driving", clip, "--weights", weights, "--crop", "0,0,301", "--out", out],
            "crop 0,0,301 does not lie in a picture of 400x300",
        ),
        (
            ["--driving", clip, "--weights", weights, "--driving-crop", "0,0,121", "--out", out],
            "crop 0,0,121 does not lie in a picture of 160x120",
        ),
        (
            ["--driving", clip, "--weights", weights, "--device", "cuda:99", "--out", out],
            f"device 'cuda:99' is not there: torch sees {torch.cuda.device_count()} CUDA devices",
        ),
        (
            ["--driving", clip, "--weights", weights, "--out", elsewhere],
            f"[Errno 2] No such file or directory: '{elsewhere}'",
        ),
        (
            ["--driving", track, "--engine", "warp", "--record", track, "--out", out],
            "speech.motion is no avatar's record",
        ),
    ]
    for options, text in cases:
        result = _mien_model(*base, *options)
        assert result.exit_code == 1, result.output
        assert result.stderr == f"Error: {text}\n"
        assert not out.exists()
