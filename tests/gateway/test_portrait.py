"""From real pictures to avatars; they lie beside the repository and are no part of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien_encoder.crop import CropSquare
from mien_encoder.finder import faces_in
from mien_encoder.framing import change_of, fit_layout
from mien_encoder.keypoints import KeypointEncoder
from mien_gateway.image import decode
from mien_gateway.picture import choose_window
from mien_gateway.portrait import make_portrait
from mien_gateway.portrait_contract import PictureRefused, Refusal
from mien_shared.keypoints import FaceKeypoint

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
MAX_PIXELS = 50_000_000

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the pictures of {DATA.name}/ are not beside the repository")


@pytest.fixture(scope="module")
def encoder() -> KeypointEncoder:
    return KeypointEncoder()


def bundled_face() -> Image.Image:
    """The bundled avatar's crop."""
    folder = ROOT / "services/gateway/mien_gateway/bundled"
    crop = json.loads((folder / "mien.json").read_text())["crop"]
    with Image.open(folder / "mien.png") as still:
        return still.convert("RGB").crop((crop["x"], crop["y"], crop["x"] + crop["size"], crop["y"] + crop["size"]))


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@needs_data
@pytest.mark.parametrize(
    "name", ["cc0_006.jpg", "cc0_028.jpg", "cc0_050_1280x720.jpg", "cc0_068.jpg", "studio_1820x1024.png"]
)
def test_a_portrait_becomes_an_avatar_with_its_face_in_the_crop(name: str, encoder: KeypointEncoder) -> None:
    portrait = make_portrait((DATA / "portraits" / name).read_bytes(), MAX_PIXELS, encoder)
    picture = np.asarray(Image.open(io.BytesIO(portrait.png)))
    assert picture.shape == (720, 1280, 3)
    fit = fit_layout(portrait.keypoints)
    assert fit.misfit < 0.07
    off = max(abs(fit.dx), abs(fit.dy), abs(np.log(fit.scale)))
    assert off < 0.15, "framed as every crop is, as far as the picture's edge lets it"
    box = CropSquare(portrait.face_box.x, portrait.face_box.y, portrait.face_box.size)
    (again,) = faces_in(picture, encoder)
    change = change_of(box, again)
    assert max(change.shift, change.growth) < 0.1, "also by a search of the still picture"


@needs_data
@pytest.mark.parametrize("name", ["london_008", "london_066", "london_143"])
def test_the_eyes_of_an_avatar_are_where_people_placed_the_pupils(name: str, encoder: KeypointEncoder) -> None:
    data = (DATA / f"portraits_london/{name}_neutral.jpg").read_bytes()
    portrait = make_portrait(data, MAX_PIXELS, encoder)
    upload = decode(data, MAX_PIXELS)
    placement = choose_window(upload.shape[1], upload.shape[0], faces_in(upload, encoder)[0])
    placed = np.load(DATA / "portraits_london/landmarks189.npz")[f"{name}_neutral"][:2]
    pupils = [placement.place(CropSquare(x, y, 0)) for x, y in placed]
    box = portrait.face_box
    expected = CropSquare(box.x, box.y, box.size).to_crop(np.array([(pupil.x, pupil.y) for pupil in pupils]))
    eyes = portrait.keypoints.points[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE]]
    assert np.linalg.norm(eyes - expected, axis=1).max() < 0.06


def test_of_two_faces_the_larger_is_taken(encoder: KeypointEncoder) -> None:
    scene = Image.new("RGB", (1280, 720), (90, 110, 120))
    for left, side in ((60, 300), (700, 480)):
        scene.paste(bundled_face().resize((side, side), Image.Resampling.LANCZOS), (left, 120))
    assert len(faces_in(np.asarray(scene), encoder)) == 2
    box = make_portrait(png(scene), MAX_PIXELS, encoder).face_box
    assert box.x + box.size / 2 == pytest.approx(700 + 240, abs=30)


def on_a_wall(drawn: Image.Image, width: int, height: int) -> bytes:
    scene = Image.new("RGB", (width, height), (90, 110, 120))
    scene.paste(drawn, ((width - drawn.width) // 2, (height - drawn.height) // 2))
    return png(scene)


def test_a_face_that_is_too_small_is_refused(encoder: KeypointEncoder) -> None:
    small = bundled_face().resize((76, 76), Image.Resampling.LANCZOS)
    said = r"^the largest face is \d\d pixels high; at least 56 are needed$"
    with pytest.raises(PictureRefused, match=said) as caught:
        make_portrait(on_a_wall(small, 400, 400), MAX_PIXELS, encoder)
    assert caught.value.refusal is Refusal.FACE_TOO_SMALL


def test_a_person_who_stands_far_away_is_found_by_the_finer_grid(encoder: KeypointEncoder) -> None:
    distant = bundled_face().resize((200, 200), Image.Resampling.LANCZOS)
    portrait = make_portrait(on_a_wall(distant, 1000, 1500), MAX_PIXELS, encoder)
    assert portrait.face_box.size > 190


@pytest.mark.parametrize("size", [(640, 480), (8, 8), (1, 2000)])
def test_a_picture_without_a_face_is_refused(size: tuple[int, int], encoder: KeypointEncoder) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (size[1], size[0], 3), np.uint8)
    with pytest.raises(PictureRefused, match="no face was found in the picture") as caught:
        make_portrait(png(Image.fromarray(noise)), MAX_PIXELS, encoder)
    assert caught.value.refusal is Refusal.NO_FACE
