"""Offline animation, all but the networks: what moves what, and what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.fomm.animation import (
    AnimationError,
    ClipWriter,
    Crop,
    Step,
    animated,
    clip_pictures,
    clip_rate,
    clip_steps,
    read_picture,
    track_steps,
)
from mien_shared.motion import NUM_KEYPOINTS, Keypoints, MotionFlags, MotionPacket


def _moved(x: float, scale: float = 1.0) -> Keypoints:
    return Keypoints(
        np.full((NUM_KEYPOINTS, 2), x, np.float32), np.tile(np.eye(2, dtype=np.float32) * scale, (NUM_KEYPOINTS, 1, 1))
    )


def _track(path: Path, *packets: MotionPacket) -> Path:
    path.write_bytes(b"".join(packet.pack() for packet in packets))
    return path


class BrightnessFinder:
    """Finds every keypoint at a picture's brightness: a real finder's contract, without a network."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def find(self, pictures: list[RgbArray]) -> list[Keypoints]:
        self.batches.append(len(pictures))
        return [_moved(float(picture.mean()) / 255) for picture in pictures]


@dataclass(frozen=True)
class Plain:
    size: int


class PlainGenerator:
    """Faces of one colour: the driving x in the red channel."""

    name = "plain"

    def prepare(self, avatar: AvatarFace) -> Plain:
        return Plain(avatar.rgb.shape[0])

    def animate(self, requests: Sequence[FaceRequest[Plain]]) -> list[RgbArray]:
        return [
            np.full((request.prepared.size,) * 2 + (3,), round(255 * request.driving.points[0, 0]), np.uint8)
            for request in requests
        ]

    def close(self) -> None:
        pass


def _grey(*levels: int) -> Iterator[RgbArray]:
    for level in levels:
        yield np.full((16, 16, 3), level, np.uint8)


# --- crops and pictures -----------------------------------------------------------------------------------------------


def test_crop_is_the_square_it_says() -> None:
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    np.testing.assert_array_equal(Crop.parse("2,1,4").of(picture), picture[1:5, 2:6])
    assert Crop.centre_of(picture) == Crop(1, 0, 6)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,3,4", ""])
def test_crop_text_that_is_none(text: str) -> None:
    with pytest.raises(AnimationError) as error:
        Crop.parse(text)
    assert str(error.value) == f"a crop is X,Y,SIZE in whole pixels, not {text!r}"


@pytest.mark.parametrize("crop", [Crop(5, 0, 4), Crop(0, 3, 4), Crop(-1, 0, 4), Crop(0, 0, 0)])
def test_crop_outside_the_picture(crop: Crop) -> None:
    with pytest.raises(AnimationError) as error:
        crop.of(np.zeros((6, 8, 3), np.uint8))
    assert str(error.value) == f"crop {crop.x},{crop.y},{crop.size} does not lie in a picture of 8x6"


def test_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 200
    cv2.imwrite(str(tmp_path / "red.png"), rgb[..., ::-1])
    np.testing.assert_array_equal(read_picture(tmp_path / "red.png"), rgb)


def test_text_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(AnimationError, match=r"^a.png is not a picture$"):
        read_picture(tmp_path / "a.png")


# --- motion -----------------------------------------------------------------------------------------------------------


def test_a_clip_moves_the_source_by_what_changed_since_its_first_frame() -> None:
    finder = BrightnessFinder()
    steps = list(clip_steps(_grey(51, 51, 102), finder, _moved(0.25)))
    assert [float(step.driving.points[0, 0]) for step in steps] == pytest.approx([0.25, 0.25, 0.45])
    assert [int(step.picture[0, 0, 0]) for step in steps if step.picture is not None] == [51, 51, 102]


def test_keypoints_of_a_clip_are_found_in_batches_and_relative_to_the_first_of_all() -> None:
    finder = BrightnessFinder()
    steps = list(clip_steps(_grey(*range(0, 255, 25)), finder, _moved(0.0)))
    assert finder.batches == [8, 3]
    assert float(steps[-1].driving.points[0, 0]) == pytest.approx(250 / 255)


def test_a_first_frame_without_an_inverse_is_named() -> None:
    class Collapsed:
        def find(self, pictures: list[RgbArray]) -> list[Keypoints]:
            return [_moved(0, scale=0) for _ in pictures]

    with pytest.raises(AnimationError, match=r"^the first driving frame has a Jacobian without an inverse"):
        list(clip_steps(_grey(1), Collapsed(), _moved(0)))


def test_a_tracks_relative_motion_moves_the_source(tmp_path: Path) -> None:
    track = _track(tmp_path / "a.motion", *(MotionPacket(i, 33 * i, _moved(0.125 * i, 2)) for i in range(3)))
    steps = list(track_steps(track, _moved(0.25, 3)))
    assert [float(step.driving.points[0, 0]) for step in steps] == [0.25, 0.375, 0.5]
    assert steps[0].driving.jacobians[0, 0, 0] == 6
    assert all(step.picture is None for step in steps)


def test_a_tracks_absolute_motion_is_taken_relative_to_its_latest_initial_frame(tmp_path: Path) -> None:
    absolute, initial = MotionFlags.ABSOLUTE, MotionFlags.ABSOLUTE | MotionFlags.NEW_INITIAL_FRAME
    packets = [
        MotionPacket(0, 0, _moved(0.5), absolute),
        MotionPacket(1, 33, _moved(0.75), absolute),
        MotionPacket(2, 66, _moved(1.0), initial),
        MotionPacket(3, 99, _moved(1.125), absolute),
    ]
    steps = track_steps(_track(tmp_path / "a.motion", *packets), _moved(0.0))
    assert [float(step.driving.points[0, 0]) for step in steps] == [0, 0.25, 0, 0.125]


@pytest.mark.parametrize("length", [0, 127, 200])
def test_a_track_that_is_cut(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.motion").write_bytes(bytes(length))
    with pytest.raises(AnimationError) as error:
        list(track_steps(tmp_path / "a.motion", _moved(0)))
    assert str(error.value) == f"a.motion is not a motion track: {length} bytes are no whole number of packets"


def test_a_track_with_a_bad_packet_names_it(tmp_path: Path) -> None:
    track = tmp_path / "a.motion"
    track.write_bytes(MotionPacket(0, 0, _moved(0)).pack() + bytes(128))
    with pytest.raises(AnimationError) as error:
        list(track_steps(track, _moved(0)))
    assert str(error.value) == "a.motion, packet 1: motion packet version 0 is not known, only 1"


def test_faces_stay_with_their_steps_across_batches() -> None:
    steps = [Step(_moved(i / 255), None) for i in range(19)]
    made = list(animated(PlainGenerator(), AvatarFace(np.zeros((4, 4, 3), np.uint8), _moved(0)), steps))
    assert [step for step, _ in made] == steps
    assert [int(face[0, 0, 0]) for _, face in made] == list(range(19))


# --- clips ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    with ClipWriter(path, Fraction(25)) as writer:
        for colour in colours:
            writer.write(np.full((64, 96, 3), colour, np.uint8))
    assert writer.frames == 3
    assert clip_rate(path) == 25
    pictures = list(clip_pictures(path, 32, None))
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 3
    for picture, colour in zip(pictures, colours, strict=True):
        np.testing.assert_allclose(picture[16, 16].astype(int), colour, atol=6)


def test_an_mp4_is_h264_and_labelled_as_synthetic(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.metadata["comment"] == "Synthetic: animated by Mien from a still picture"


def test_a_clip_is_cropped_before_it_is_scaled(tmp_path: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[16:48, 80:112] = 255
    with ClipWriter(tmp_path / "a.mp4", Fraction(30)) as writer:
        writer.write(picture)
    (cropped,) = clip_pictures(tmp_path / "a.mp4", 16, Crop(80, 16, 32))
    assert cropped.min() > 240


def test_a_failure_leaves_no_half_mp4(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path / "a.mp4", Fraction(30))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(AnimationError, match="midway"), writer:
        raise AnimationError("midway")
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_of_nothing_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(AnimationError, match=r"^a.mp4 would hold no frame$"),
        ClipWriter(tmp_path / "a.mp4", Fraction(30)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_text_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("hello, hello, hello")
    with pytest.raises(AnimationError, match=r"^a.mp4 is not a clip: "):
        clip_rate(tmp_path / "a.mp4")
