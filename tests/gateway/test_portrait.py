"""From real pictures to avatars; they lie beside the repository and are no part of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mien_encoder.crop import FIVE_LANDMARKS, CropSquare, RgbArray
from mien_encoder.finder import FaceFinder
from mien_encoder.keypoints import EncodedFace, KeypointEncoder
from mien_gateway.portrait import make_portrait
from mien_gateway.portrait_contract import PictureRefused, Refusal
from mien_shared.keypoints import FaceKeypoint

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
MAX_PIXELS = 50_000_000

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the pictures of {DATA.name}/ are not beside the repository")


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def encoder() -> KeypointEncoder:
    return KeypointEncoder()


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@needs_data
@pytest.mark.parametrize(
    "name", ["cc0_006.jpg", "cc0_028.jpg", "cc0_050_1280x720.jpg", "cc0_068.jpg", "studio_1820x1024.png"]
)
def test_a_portrait_becomes_an_avatar_with_its_face_in_the_crop(
    name: str, finder: FaceFinder, encoder: KeypointEncoder
) -> None:
    portrait = make_portrait((DATA / "portraits" / name).read_bytes(), MAX_PIXELS, finder, encoder)
    picture = np.asarray(Image.open(io.BytesIO(portrait.png)))
    assert picture.shape == (720, 1280, 3)
    box = portrait.face_box
    again = finder.find(picture)[0]
    in_crop = (again.landmarks - (box.x, box.y)) * (2 / box.size) - 1
    assert np.abs(in_crop - FIVE_LANDMARKS).max() < 0.35, "framed as every crop is"
    eyes = portrait.keypoints.points[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE]]
    assert np.abs(eyes - in_crop[:2]).max() < 0.05
    lips = portrait.keypoints.points[[FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP]].mean(axis=0)
    assert np.linalg.norm(lips - in_crop[3:].mean(axis=0)) < 0.1


class Blind(KeypointEncoder):
    """The encoder's verdict on what it takes for no face: a mask, a doll, a painting in broad strokes."""

    def encode(self, crop: RgbArray) -> EncodedFace:
        return replace(super().encode(crop), presence=0.1)


@needs_data
def test_where_the_encoder_sees_no_face_the_measured_layout_stands_in(
    finder: FaceFinder, encoder: KeypointEncoder
) -> None:
    data = (DATA / "portraits/cc0_061.jpg").read_bytes()
    by_layout = make_portrait(data, MAX_PIXELS, finder, Blind())
    assert np.ptp(by_layout.keypoints.jacobians, axis=0).max() < 1e-6, "one similarity for all ten"
    encoded = make_portrait(data, MAX_PIXELS, finder, encoder)
    assert np.ptp(encoded.keypoints.jacobians, axis=0).max() > 0.02
    to_picture = [
        CropSquare(made.face_box.x, made.face_box.y, made.face_box.size).to_picture(made.keypoints.points)
        for made in (by_layout, encoded)
    ]
    off = np.linalg.norm(to_picture[0] - to_picture[1], axis=1).mean() / encoded.face_box.size
    assert off < 0.05, "both mean the same face"


@needs_data
def test_of_two_faces_the_larger_is_taken(finder: FaceFinder, encoder: KeypointEncoder) -> None:
    with Image.open(DATA / "edge/two_faces.gif") as gif:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(gif)]
    for frame in frames:
        faces = finder.find(np.asarray(frame))
        if len(faces) >= 2:
            break
    else:
        pytest.fail("no frame shows two faces")
    assert faces[0].height >= faces[1].height
    twice = frame.resize((2 * frame.width, 2 * frame.height))
    portrait = make_portrait(png(twice), MAX_PIXELS, finder, encoder)
    found = finder.find(np.asarray(Image.open(io.BytesIO(portrait.png))))
    box = portrait.face_box
    shown = min(found, key=lambda face: abs(face.x + face.width / 2 - box.x - box.size / 2))
    assert shown.height == max(face.height for face in found)


@needs_data
def test_a_face_that_is_too_small_is_refused(finder: FaceFinder, encoder: KeypointEncoder) -> None:
    with Image.open(DATA / "portraits/cc0_006.jpg") as large:
        tiny = large.convert("RGB").resize((90, 90), Image.Resampling.LANCZOS)
    scene = Image.new("RGB", (400, 400), (90, 110, 120))
    scene.paste(tiny, (150, 150))
    with pytest.raises(PictureRefused, match=r"the largest face is \d\d pixels high; at least 64 are needed") as caught:
        make_portrait(png(scene), MAX_PIXELS, finder, encoder)
    assert caught.value.refusal is Refusal.FACE_TOO_SMALL


@pytest.mark.parametrize("size", [(640, 480), (8, 8), (1, 2000)])
def test_a_picture_without_a_face_is_refused(
    size: tuple[int, int], finder: FaceFinder, encoder: KeypointEncoder
) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (size[1], size[0], 3), np.uint8)
    with pytest.raises(PictureRefused, match="no face was found in the picture") as caught:
        make_portrait(png(Image.fromarray(noise)), MAX_PIXELS, finder, encoder)
    assert caught.value.refusal is Refusal.NO_FACE
