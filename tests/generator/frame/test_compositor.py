"""The compositor: only the face's rectangle changes, and no seam shows."""

import av
import cv2
import numpy as np
import pytest
from boxes import face_box
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mien_generator.face.contract import RgbArray, YuvPatch
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH, FrameShapeError, PasteRegion, border_mask
from mien_generator.frame.compositor import Compositor
from mien_shared.avatars import FaceBox

Yuv = NDArray[np.uint8]


def draw_still() -> RgbArray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (45, 80, 3), dtype=np.uint8)
    picture: RgbArray = cv2.resize(coarse, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_CUBIC)
    return picture


STILL = draw_still()
STILL_YUV: Yuv = cv2.cvtColor(STILL, cv2.COLOR_RGB2YUV_I420)


def crop_of(box: FaceBox) -> RgbArray:
    return STILL[box.y : box.y + box.size, box.x : box.x + box.size].copy()


def a_face(size: int, seed: int = 0) -> RgbArray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)


def yuv_of(frame: av.VideoFrame) -> Yuv:
    return np.asarray(frame.to_ndarray(), np.uint8)


def planes_outside(yuv: Yuv, box: FaceBox) -> list[Yuv]:
    """Luma and both chroma planes with the box's rectangle, grown to even pixels, blanked."""
    left, top = box.x & ~1, box.y & ~1
    right, bottom = box.x + box.size + 1 & ~1, box.y + box.size + 1 & ~1
    luma = yuv[:FRAME_HEIGHT].copy()
    chroma = yuv[FRAME_HEIGHT:].reshape(2, FRAME_HEIGHT // 2, FRAME_WIDTH // 2).copy()
    luma[top:bottom, left:right] = 0
    chroma[:, top // 2 : bottom // 2, left // 2 : right // 2] = 0
    return [luma, chroma[0], chroma[1]]


def test_the_avatars_own_face_gives_the_still_picture_back() -> None:
    box = face_box(448, 60, 384)
    frame = Compositor(STILL, box).compose(crop_of(box))
    assert (frame.width, frame.height, frame.format.name) == (FRAME_WIDTH, FRAME_HEIGHT, "yuv420p")
    np.testing.assert_array_equal(frame.to_ndarray(), STILL_YUV)


@given(st.integers(16, 640), st.data())
@settings(max_examples=12, deadline=None)
def test_nothing_outside_the_rectangle_changes_by_a_bit(size: int, data: st.DataObject) -> None:
    box = face_box(data.draw(st.integers(0, FRAME_WIDTH - size)), data.draw(st.integers(0, FRAME_HEIGHT - size)), size)
    compositor = Compositor(STILL, box)
    for seed in range(2):
        seen = yuv_of(compositor.compose(a_face(size, seed)))
        for now, before in zip(planes_outside(seen, box), planes_outside(STILL_YUV, box), strict=True):
            np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("box", [face_box(448, 60, 384), face_box(449, 61, 383), face_box(896, 336, 384)])
def test_the_whole_picture_converted_at_once_is_the_same(box: FaceBox) -> None:
    face = a_face(box.size)
    expected = STILL.copy()
    weight = border_mask(box.size)[..., None]
    blended = weight * face + (1 - weight) * crop_of(box)
    expected[box.y : box.y + box.size, box.x : box.x + box.size] = np.round(blended).astype(np.uint8)
    seen = yuv_of(Compositor(STILL, box).compose(face))
    difference = np.abs(seen.astype(int) - cv2.cvtColor(expected, cv2.COLOR_RGB2YUV_I420))
    assert difference.max() <= 1  # rounding of the blend


def test_no_seam_shows() -> None:
    """A face all white on a black picture: from the border inwards the luma rises without a step."""
    compositor = Compositor(np.zeros_like(STILL), face_box(400, 100, 384))
    luma = yuv_of(compositor.compose(np.full((384, 384, 3), 255, np.uint8)))[:FRAME_HEIGHT].astype(int)
    row = luma[100 + 192, 390:592]
    assert row[0] == row[10] == 16
    assert row[-1] == 235
    steps = np.diff(row)
    assert steps.min() >= 0
    assert steps.max() < 30
    assert luma[100, 400:784].max() == 16  # the outermost pixels stay the avatar's own
    assert luma[104, 404] == 16  # and the corners are round


def test_a_face_of_another_size_is_scaled_to_the_crop() -> None:
    box = face_box(330, 40, 640)
    small = cv2.resize(crop_of(box), (384, 384), interpolation=cv2.INTER_AREA)
    seen = yuv_of(Compositor(STILL, box).compose(small))
    assert np.abs(seen.astype(int) - STILL_YUV).mean() < 1
    large = cv2.resize(crop_of(box), (700, 700), interpolation=cv2.INTER_LINEAR)
    seen = yuv_of(Compositor(STILL, box).compose(large))
    assert np.abs(seen.astype(int) - STILL_YUV).mean() < 1


def test_a_face_leaves_nothing_behind_for_the_next() -> None:
    box = face_box(448, 60, 384)
    compositor = Compositor(STILL, box)
    compositor.compose(a_face(384))
    np.testing.assert_array_equal(yuv_of(compositor.compose(crop_of(box))), STILL_YUV)


def test_the_still_picture_is_not_written_to() -> None:
    still = STILL.copy()
    Compositor(still, face_box(0, 0, 384)).compose(a_face(384))
    np.testing.assert_array_equal(still, STILL)


@pytest.mark.parametrize(
    ("still", "box", "message"),
    [
        (np.zeros((720, 1279, 3), np.uint8), face_box(0, 0, 384), r"still picture must be \(720, 1280, 3\) uint8, not"),
        (np.zeros((720, 1280, 3), np.float32), face_box(0, 0, 384), "uint8, not .* float32"),
        (STILL, face_box(-1, 0, 384), r"crop box of 384 pixels at \(-1, 0\) extends beyond the picture"),
        (STILL, face_box(900, 0, 384), r"crop box of 384 pixels at \(900, 0\) extends beyond the picture"),
        (STILL, face_box(0, 400, 384), r"crop box of 384 pixels at \(0, 400\) extends beyond the picture"),
        (STILL, face_box(0, 0, 0), "a crop box of 0 pixels is too small; the minimum is 16 pixels"),
    ],
)
def test_what_cannot_be_placed_is_refused(still: RgbArray, box: FaceBox, message: str) -> None:
    with pytest.raises(FrameShapeError, match=message):
        Compositor(still, box)


@pytest.mark.parametrize("face", [np.zeros((384, 383, 3), np.uint8), np.zeros((384, 384), np.uint8)])
def test_a_face_that_is_none_is_refused(face: RgbArray) -> None:
    with pytest.raises(FrameShapeError, match=r"a face must be \(S, S, 3\) uint8, not"):
        Compositor(STILL, face_box(0, 0, 384)).compose(face)


def patch_of(region: PasteRegion, face: RgbArray) -> YuvPatch:
    """What a device engine returns: the same face, finished by other means than the compositor's."""
    weight = np.zeros(region.shape, np.float32)
    weight[region.crop] = border_mask(region.size)
    placed = np.zeros_like(region.still)
    placed[region.crop] = face
    blended = weight[..., None] * placed + (1 - weight[..., None]) * region.still
    yuv = cv2.cvtColor(np.round(blended).astype(np.uint8), cv2.COLOR_RGB2YUV_I420)
    height, width = region.shape
    u, v = yuv[height:].reshape(2, height // 2, width // 2)
    return YuvPatch(yuv[:height], u, v)


@pytest.mark.parametrize("box", [face_box(448, 60, 384), face_box(449, 60, 384), face_box(896, 335, 383)])
def test_a_patch_and_the_face_it_was_made_of_give_the_same_picture(box: FaceBox) -> None:
    face = a_face(box.size)
    compositor = Compositor(STILL, box)
    by_face = yuv_of(compositor.compose(face)).astype(int)
    by_patch = yuv_of(compositor.compose(patch_of(compositor.region, face)))
    assert np.abs(by_face - by_patch).max() <= 1  # rounding of the blend
    assert np.mean(by_face != by_patch) < 0.01


def test_a_patch_of_the_avatars_own_face_gives_the_still_picture_back() -> None:
    box = face_box(449, 61, 384)
    compositor = Compositor(STILL, box)
    compositor.compose(a_face(384))
    patch = patch_of(compositor.region, crop_of(box))
    np.testing.assert_array_equal(yuv_of(compositor.compose(patch)), STILL_YUV)


def test_a_patch_of_another_picture_is_refused_and_changes_nothing() -> None:
    box = face_box(448, 60, 384)
    compositor = Compositor(STILL, box)
    other = Compositor(STILL, face_box(449, 60, 384)).region
    planes = r"^a patch of this picture must have planes of \(384, 384\) and \(192, 192\)"
    with pytest.raises(FrameShapeError, match=planes):
        compositor.compose(patch_of(other, a_face(384)))
    np.testing.assert_array_equal(yuv_of(compositor.compose(crop_of(box))), STILL_YUV)


def test_the_region_is_the_crop_grown_to_even_pixels() -> None:
    region = Compositor(STILL, face_box(449, 60, 383)).region
    assert (region.left, region.top, region.x, region.y, region.shape) == (448, 60, 1, 0, (384, 384))
    np.testing.assert_array_equal(region.still, STILL[60:444, 448:832])
    np.testing.assert_array_equal(region.still[region.crop], STILL[60:443, 449:832])
