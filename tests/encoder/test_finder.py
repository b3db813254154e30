"""Faces found on a grid of crops; tests/js holds the JavaScript to the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from js.drawn_face import Pose, draw

from mien_encoder.crop import CropSquare, RgbArray
from mien_encoder.finder import LOOKS_A_PICTURE, SEARCH_INTERVAL_S, GridFinder, PatientFinder, Search, faces_in, grid_of
from mien_encoder.keypoints import EncodedFace, KeypointEncoder
from mien_shared.keypoints import Keypoints

FRAME_S = 1 / 30
POSES = [
    Pose(),
    Pose(height=330, y=250),
    Pose(height=110, x=140, y=120, lids=4, lips=2),
    Pose(height=90, x=520, y=330, lids=3, lips=1),
    Pose(height=200, x=120, y=300),
    Pose(height=150, x=450, y=130, lids=6),
]


class CountingEncoder(KeypointEncoder):
    """K, and how many crops it looked at."""

    looks = 0

    def encode_all(self, crops: Sequence[RgbArray]) -> list[EncodedFace]:
        self.looks += len(crops)
        return super().encode_all(crops)


@pytest.fixture(scope="module")
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 720), (300, 300)])
def test_every_place_is_near_the_middle_of_a_crop(size: tuple[int, int]) -> None:
    squares = grid_of(*size)
    assert len(squares) <= 40
    small = min(square.size for square in squares)
    centres = np.array([square.centre for square in squares if square.size == small])
    for x in np.arange(small / 2, size[0] - small / 2, 7):
        for y in np.arange(small / 2, size[1] - small / 2, 7):
            assert np.abs(centres - (x, y)).max(axis=1).min() <= 0.251 * small


@pytest.mark.parametrize("size", [(8, 8), (1, 2000), (2000, 19)])
def test_a_picture_without_room_for_a_face_has_no_grid_and_its_search_ends(size: tuple[int, int]) -> None:
    assert grid_of(*size) == []
    search = Search(*size)
    assert search.ended
    assert search.looks(4) == search.found == []


@pytest.mark.parametrize("pose", POSES, ids=lambda pose: f"{pose.height}-{pose.x}-{pose.y}")
def test_a_face_of_any_usual_size_and_place_is_found(pose: Pose, encoder: CountingEncoder) -> None:
    (square,) = faces_in(draw(pose), encoder)
    assert abs(square.centre[0] - pose.x) < 0.1 * pose.height
    assert 1.2 * pose.height < square.size < 1.7 * pose.height


def test_over_pictures_a_search_finds_the_same_and_no_picture_costs_much(encoder: CountingEncoder) -> None:
    picture, finder = draw(Pose()), GridFinder(encoder)
    spent, found = [], list[CropSquare]()
    for number in range(12):
        encoder.looks = 0
        found = found or finder.find(picture, number * FRAME_S)
        spent.append(encoder.looks)
        if found:
            break
    assert found == faces_in(picture, encoder)
    assert len(spent) > 5
    assert max(spent) <= LOOKS_A_PICTURE


def test_searches_begin_an_interval_apart(encoder: CountingEncoder) -> None:
    wall = draw(None)
    for finder, pictures in ((GridFinder(encoder), 6), (PatientFinder(encoder), 1)):
        times_s = np.arange(60) * FRAME_S
        looked = []
        for time_s in times_s:
            encoder.looks = 0
            assert finder.find(wall, float(time_s)) == []
            looked.append(encoder.looks > 0)
        assert sum(looked) == pictures * 5, "two seconds have room for five searches"
        starts = times_s[np.flatnonzero(np.diff([False, *looked]) & np.array(looked))]
        assert np.diff(starts).min() >= SEARCH_INTERVAL_S - 1e-9


def test_of_two_faces_the_larger_comes_first(encoder: CountingEncoder) -> None:
    both = draw(Pose(x=500, height=130, lids=5))
    both[:, :370] = draw(Pose(x=200, height=220))[:, :370]
    large, small = faces_in(both, encoder)
    assert large.size > 1.3 * small.size
    assert abs(large.centre[0] - 200) < 20


def without_a_face() -> dict[str, RgbArray]:
    y, x = np.mgrid[0:480, 0:640]
    planes = {
        "wall": np.full((480, 640), 127),
        "stripes": ((x + 2 * y) >> 4 & 1) * 200,
        "checks": (x >> 5 ^ y >> 5 & 1) * 255,
        "letters": np.where(x % 24 * (y % 36) % 7 < 2, 20, 235),
        "circle": np.where((x - 320) ** 2 + (y - 240) ** 2 < 150**2, 220, 60),
        "eyes": np.where(((abs(x - 320) - 60) ** 2 + (y - 200) ** 2 < 30**2), 20, 200),
    }
    pictures = {name: np.repeat(plane[..., None], 3, axis=2).astype(np.uint8) for name, plane in planes.items()}
    return pictures | {"noise": np.random.default_rng(3).integers(0, 255, (480, 640, 3), np.uint8)}


@pytest.mark.parametrize(("name", "picture"), without_a_face().items(), ids=lambda value: str(value)[:8])
def test_what_is_no_face_is_not_found(name: str, picture: RgbArray, encoder: CountingEncoder) -> None:
    assert faces_in(picture, encoder) == [], name


def test_a_face_that_is_barely_seen_is_not_found(encoder: CountingEncoder) -> None:
    class Doubtful(CountingEncoder):
        def encode_all(self, crops: Sequence[RgbArray]) -> list[EncodedFace]:
            return [replace(face, presence=0.65 * face.presence) for face in super().encode_all(crops)]

    assert faces_in(draw(Pose()), Doubtful()) == []


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_every_search_ends_whatever_the_encoder_says(seed: int, doubt: float) -> None:
    random = np.random.default_rng(seed)
    search = Search(640, 480)
    looks = 0
    while not search.ended:
        squares = search.looks(LOOKS_A_PICTURE)
        assert squares, "it asks for something until it ends"
        looks += len(squares)
        noise = random.normal(0, 0.1, (10, 2)).astype(np.float32)
        keypoints = Keypoints(noise, Keypoints.at_rest().jacobians)
        search.saw([EncodedFace(keypoints, float(random.random() > doubt)) for _ in squares])
    assert looks <= len(grid_of(640, 480)) + 3 * 16
