"""What the device makes of a face beside what the compositor makes of it with cv2."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch
from boxes import face_box

from mien_generator.face.contract import FacePicture, RgbArray, YuvPatch
from mien_generator.face.fomm.device.finish import Finisher, Placement
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_generator.frame.compositor import Compositor
from mien_shared.avatars import FaceBox

SIZE = 64
CPU = torch.device("cpu")


def a_picture(seed: int, height: int, width: int) -> RgbArray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def a_face(seed: int) -> RgbArray:
    return a_picture(seed, SIZE, SIZE)


def finished(finisher: Finisher, faces: Sequence[RgbArray], places: Sequence[Placement | None]) -> list[FacePicture]:
    levels = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255
    packed, packing = finisher.finish(levels, places)
    assert packed.shape == (packing.num_bytes,)
    return packing.pictures(packed.numpy())


STILL = a_picture(1, FRAME_HEIGHT, FRAME_WIDTH)


@pytest.mark.parametrize(
    "box",
    [
        face_box(100, 50, SIZE),  # as it comes
        face_box(101, 50, SIZE),  # off the even pixels
        face_box(100, 51, SIZE - 1),
        face_box(330, 40, 640),  # scaled up
        face_box(101, 51, 97),
        face_box(100, 50, 40),  # and down
        face_box(FRAME_WIDTH - 33, FRAME_HEIGHT - 33, 33),
    ],
)
def test_a_patch_is_what_the_compositor_makes_of_the_face(box: FaceBox) -> None:
    compositor, finisher, face = Compositor(STILL, box), Finisher(SIZE, CPU), a_face(2)
    by_cv2 = compositor.compose(face).to_ndarray().astype(int)
    (patch,) = finished(finisher, [face], [finisher.place(compositor.region)])
    assert isinstance(patch, YuvPatch)
    by_device = compositor.compose(patch).to_ndarray()
    # cv2 scales in fixed point and rounds before it feathers: a level of each of red, green and blue.
    assert np.abs(by_cv2 - by_device).max() <= 2
    height, width = compositor.region.shape
    assert np.count_nonzero(np.abs(by_cv2 - by_device) > 1) < 0.001 * height * width


def test_the_conversion_is_cv2s_bit_by_bit() -> None:
    """On every colour at once, more or less: noise in a region without scaling, all of it the face's."""
    face = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    compositor, finisher = Compositor(np.zeros_like(STILL), face_box(0, 0, SIZE)), Finisher(SIZE, CPU)
    compositor.region.still[:] = face  # where the still picture is the face itself, feathering changes nothing
    (patch,) = finished(finisher, [face], [finisher.place(compositor.region)])
    assert isinstance(patch, YuvPatch)
    expected = cv2.cvtColor(face, cv2.COLOR_RGB2YUV_I420)
    made = np.concatenate([patch.luma.ravel(), patch.u.ravel(), patch.v.ravel()])
    np.testing.assert_array_equal(made, expected.ravel())


def test_a_batch_of_all_kinds_keeps_its_order() -> None:
    finisher = Finisher(SIZE, CPU)
    boxes = [
        face_box(100, 50, SIZE),
        None,
        face_box(100, 50, 100),
        face_box(300, 50, SIZE),
        None,
        face_box(200, 80, 100),
    ]
    regions = [Compositor(STILL, box).region if box else None for box in boxes]
    places = [finisher.place(region) if region else None for region in regions]
    faces = [a_face(seed) for seed in range(len(boxes))]
    together = finished(finisher, faces, places)
    for face, place, made in zip(faces, places, together, strict=True):
        (alone,) = finished(finisher, [face], [place])
        if isinstance(made, YuvPatch):
            assert isinstance(alone, YuvPatch)
            for plane in ("luma", "u", "v"):
                np.testing.assert_array_equal(getattr(made, plane), getattr(alone, plane))
        else:
            np.testing.assert_array_equal(made, face)


def test_avatars_of_one_shape_share_what_depends_on_it_while_there_are_any() -> None:
    finisher = Finisher(SIZE, CPU)
    first = finisher.place(Compositor(STILL, face_box(100, 50, 100)).region)
    second = finisher.place(Compositor(STILL, face_box(300, 150, 100)).region)
    assert first.geometry is second.geometry
    assert not torch.equal(first.still, second.still)
    del first, second
    assert len(finisher._geometries) == 0
