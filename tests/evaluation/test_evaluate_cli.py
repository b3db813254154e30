from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mien_encoder.keypoints import bundled_path
from mien_evaluation.clips import read_picture
from mien_evaluation.detectors import FaceReader, face_reader
from mien_evaluation.model_cli import model
from mien_shared.avatars import AvatarRecord
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

needs_encoder = pytest.mark.skipif(not bundled_path().exists(), reason="the encoder's weights are not there")

MEASURES = {"frames", "unread", "l1", "akd", "akd_per_coordinate", "aed", "aed_squared"}


@pytest.fixture
def track(tmp_path: Path) -> Path:
    path = tmp_path / "speech.motion"
    motions = [Keypoints.at_rest() for _ in range(4)]
    motions[2].points[:] = 0.1
    path.write_bytes(b"".join(MotionPacket(i, 33 * i, motion).pack() for i, motion in enumerate(motions)))
    return path


@pytest.fixture
def record(tmp_path: Path, avatar_record: AvatarRecord) -> Path:
    path = tmp_path / "record.json"
    path.write_text(avatar_record.model_dump_json())
    return path


@pytest.fixture
def own_detector(tmp_path: Path) -> Path:
    """Weights that bring a keypoint detector, as an imported checkpoint does."""
    pytest.importorskip("torch", reason="FOMM runs on torch")
    from mien_generator.face.fomm.checkpoint import random_weights, write_weights
    from mien_generator.face.fomm.config import FommConfig, GeneratorConfig, HourglassConfig, KeypointDetectorConfig

    config = FommConfig(
        keypoint_detector=KeypointDetectorConfig(block_expansion=4, max_features=16, num_blocks=2),
        generator=GeneratorConfig(
            block_expansion=8,
            max_features=16,
            num_down_blocks=2,
            num_bottleneck_blocks=2,
            dense_motion=HourglassConfig(block_expansion=8, max_features=24, num_blocks=3),
        ),
    )
    path = tmp_path / "imported.safetensors"
    write_weights(random_weights(config), path)
    return path


def _mien_model(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_prints_a_table_with_the_baselines_and_writes_a_sheet(
    reader: FaceReader, labelled: Callable[[str, str], Path], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["--labelled", labelled("talk", "anna"), "--engine", "warp", "--sheet", sheet, "--columns", 2]
    result = _mien_model("evaluate", *arguments, "--every", 2)
    assert result.exit_code == 0, result.output
    header, still, warp = result.stdout.splitlines()
    assert header.split() == ["clip", "frames", "unread", "method", "L1", "AKD", "AED"]
    assert still.split()[:4] == ["talk", "2", "0", "still"]
    assert warp.split()[:4] == ["talk", "2", "0", "warp"]
    assert float(warp.split()[5]) < float(still.split()[5])
    height, width = read_picture(sheet).shape[:2]
    assert height > 3 * 192, "driving, still and warp"
    assert width > 2 * 192


def test_evaluate_json_over_people_names_what_measured_and_what_could_not_be(
    reader: FaceReader, labelled: Callable[[str, str], Path], tmp_path: Path
) -> None:
    for name, identity in (("sets/a_1", "a"), ("sets/a_2", "a"), ("sets/b", "b")):
        labelled(name, identity)
    (labelled("sets/bad", "c") / "keypoints.npy").unlink()
    result = _mien_model("evaluate", "--labelled", tmp_path / "sets", "--engine", "warp", "--every", 3, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["size"], told["keypoints"], told["motion"], told["every"]) == (256, "labels", "absolute", 3)
    assert "dlib" in told["landmark_detector"]
    assert "dlib" in told["identity_network"]
    assert [(clip["clip"], clip["identity"]) for clip in told["clips"]] == [("a_1", "a"), ("a_2", "a"), ("b", "b")]
    assert told["mean"]["identities"] == 2
    assert told["mean"]["frames"] == 6
    assert told["failed"] == [{"clip": "bad", "error": "bad is not a labelled set"}]
    assert result.stderr == "Error: bad is not a labelled set\n"
    for methods in (told["mean"]["methods"], *(clip["methods"] for clip in told["clips"])):
        assert methods.keys() == {"still", "warp"}
        assert all(scores.keys() == MEASURES for scores in methods.values())


def test_evaluate_sets_the_network_beside_the_baselines(
    reader: FaceReader, own_detector: Path, labelled: Callable[[str, str], Path]
) -> None:
    network = ["--engine", "torch", "--weights", own_detector]
    result = _mien_model("evaluate", "--labelled", labelled("talk", "anna"), *network, "--every", 4, "--json")
    assert result.exit_code == 0, result.output
    still, warp, fomm = json.loads(result.stdout)["mean"]["methods"].values()
    assert still["l1"] == 0, "the first frame alone"
    assert warp["l1"] < 0.01
    assert fomm["l1"] > 0.05, "its weights are random"


@needs_encoder
def test_a_folder_of_clips_with_one_that_has_no_face(
    reader: FaceReader, face_clip: Path, noise_clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_text("no clip at all")
    result = _mien_model("evaluate", "--folder", tmp_path, "--engine", "warp", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["keypoints"] == "encoder"
    assert [clip["clip"] for clip in told["clips"]] == ["face.mp4"]
    assert [failed["clip"] for failed in told["failed"]] == ["broken.mp4", "noise.mp4"]
    assert told["failed"][1]["error"] == "no face in noise.mp4"


@needs_encoder
def test_a_single_clip_without_a_face_is_an_error(reader: FaceReader, noise_clip: Path) -> None:
    result = _mien_model("evaluate", "--clip", noise_clip, "--engine", "warp")
    assert result.exit_code == 1
    assert result.stderr == "Error: no face in noise.mp4\n"


def test_evaluate_asks_for_something_to_evaluate(labelled: Callable[[str, str], Path], tmp_path: Path) -> None:
    nothing = _mien_model("evaluate")
    assert nothing.exit_code == 2
    assert "give --clip, --folder or --labelled" in nothing.stderr
    two = [argument for name in ("a", "b") for argument in ("--labelled", labelled(name, name))]
    sheet = _mien_model("evaluate", *two, "--sheet", tmp_path / "s.png")
    assert sheet.exit_code == 2
    assert "--sheet shows one clip" in sheet.stderr


def test_evaluate_without_its_instruments_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, labelled: Callable[[str, str], Path]
) -> None:
    face_reader.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    result = _mien_model("evaluate", "--labelled", labelled("talk", "anna"), "--engine", "warp")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: evaluation needs dlib, which is not installed: pip install 'mien-evaluation[instruments]'\n"
    )


def test_the_commands_import_without_torch_and_dlib() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['dlib'] = None\n"
        "from mien_evaluation.model_cli import model\n"
        "model(['evaluate', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "self-reenactment" in done.stdout


# --- animate ----------------------------------------------------------------------------------------------------------


def test_a_track_moves_a_stored_avatar(avatar_picture: Path, record: Path, track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["animate", "--source", avatar_picture, "--driving", track, "--record", record, "--out", out]
    result = _mien_model(*arguments, "--engine", "warp", "--size", 256)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 4 frames, 30 a second\n"
    frames = _frames(out)
    assert [frame.shape for frame in frames] == [(256, 512, 3)] * 4
    shown = cv2.resize(read_picture(avatar_picture)[94:478, 448:832], (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(frames[0][:, :256].astype(int) - shown).mean() < 3, "the record's crop"
    apart = np.abs(frames[0].astype(int) - frames[2])
    assert apart[:, :256].mean() < 1, "the source stands"
    assert apart[:, 256:].mean() > 4, "the result moves"

    assert _mien_model(*arguments, "--engine", "warp", "--size", 256, "--result-only").exit_code == 0
    assert [frame.shape for frame in _frames(out)] == [(256, 256, 3)] * 4


@needs_encoder
def test_a_clip_moves_a_picture_by_the_encoder(avatar_picture: Path, face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["animate", "--source", avatar_picture, "--driving", face_clip, "--engine", "warp", "--out", out]
    result = _mien_model(*arguments, "--size", 256)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 3 frames, 25 a second\n"
    assert [frame.shape for frame in _frames(out)] == [(256, 768, 3)] * 3
    assert _mien_model(*arguments, "--size", 256, "--driving-crop", "20,20,300").exit_code == 0


def test_imported_weights_find_their_own_keypoints(
    own_detector: Path, avatar_picture: Path, face_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    crops = ["--crop", "448,94,384", "--driving-crop", "20,20,300"]
    arguments = ["--engine", "torch", "--weights", own_detector, *crops, "--size", 256, "--out", out]
    result = _mien_model("animate", "--source", avatar_picture, "--driving", face_clip, *arguments)
    assert result.exit_code == 0, result.output
    assert [frame.shape for frame in _frames(out)] == [(256, 768, 3)] * 3


def test_animate_refuses_what_does_not_go_together(
    own_detector: Path,
    avatar_picture: Path,
    face_clip: Path,
    noise_clip: Path,
    track: Path,
    record: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.mp4"
    fomm: list[object] = ["--engine", "torch", "--weights", own_detector, "--size", 256]
    warp: list[object] = ["--engine", "warp"]
    cases: list[tuple[list[object], str]] = [
        (
            [*fomm, "--driving", track],
            "weights with their own keypoint detector take no motion track and no record: "
            "give a clip as --driving, and --crop instead of --record",
        ),
        (
            [*warp, "--driving", track, "--keypoints", "weights"],
            "--keypoints weights needs --weights with a file that has a keypoint detector",
        ),
        ([*warp, "--driving", track, "--record", track], "speech.motion is not the record of an avatar"),
        (
            [*warp, "--driving", track, "--record", record, "--crop", "0,0,9"],
            "--record already gives the crop: leave out --crop",
        ),
        (
            [*fomm, "--driving", face_clip, "--crop", "0,0,721"],
            "crop 0,0,721 is not inside the picture of 1280x720",
        ),
        (
            [*fomm, "--driving", face_clip, "--driving-crop", "0,0,361"],
            "crop 0,0,361 is not inside the picture of 360x360",
        ),
        (
            [*fomm, "--driving", noise_clip],
            "no face in the first frame of noise.mp4: give its place with --driving-crop",
        ),
        (
            ["--engine", "torch", "--weights", record, "--driving", face_clip],
            "record.json is not a safetensors file",
        ),
    ]
    for options, text in cases:
        result = _mien_model("animate", "--source", avatar_picture, "--out", out, *options)
        assert result.exit_code == 1, (options, result.output)
        assert result.stderr == f"Error: {text}\n"
        assert not out.exists()


def test_a_picture_without_a_face_asks_for_its_place(own_detector: Path, face_clip: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((300, 300, 3), 128, np.uint8))
    arguments = ["--engine", "torch", "--weights", own_detector, "--driving", face_clip, "--out", tmp_path / "out.mp4"]
    result = _mien_model("animate", "--source", grey, *arguments)
    assert result.stderr == "Error: no face in grey.png: give its place with --crop\n"
