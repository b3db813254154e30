"""The warp generator: what moves, what must not, and that nothing ever folds."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.layout import find_mouth, is_face, reach_of
from mien_generator.face.warp import AvatarShapeError, WarpFace, WarpGenerator, Workspace, backward_map
from mien_shared.keypoints import NUM_KEYPOINTS, FaceKeypoint, FloatArray, Keypoints

K = FaceKeypoint
SIZE = 192
UNIT = np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1))
FACE_POINTS = np.array(
    [
        (-0.30, -0.38), (0.30, -0.38), (-0.25, -0.24), (0.25, -0.24), (0.0, 0.0),
        (0.0, 0.19), (0.0, 0.26), (0.0, 0.52), (-0.38, 0.05), (0.38, 0.05),
    ],
    np.float32,
)  # fmt: skip
SOURCE = Keypoints(FACE_POINTS, UNIT)


def draw_avatar(size: int = SIZE) -> RgbArray:
    """A head with eyes and lips on a textured ground, so that every motion shows."""
    rng = np.random.default_rng(7)
    ground: RgbArray = cv2.GaussianBlur(rng.integers(60, 200, (size, size, 3), dtype=np.uint8), (0, 0), 3)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x + 1) * 0.5 * (size - 1)), round((y + 1) * 0.5 * (size - 1))

    def length(x: float) -> int:
        return max(1, round(x * 0.5 * size))

    cv2.ellipse(ground, at(0, -0.05), (length(0.5), length(0.65)), 0, 0, 360, (224, 186, 160), -1, cv2.LINE_AA)
    for x in (-0.25, 0.25):
        cv2.ellipse(ground, at(x, -0.24), (length(0.09), length(0.045)), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(ground, at(x, -0.24), length(0.04), (40, 60, 90), -1, cv2.LINE_AA)
    cv2.ellipse(ground, at(0, 0.225), (length(0.18), length(0.06)), 0, 0, 360, (190, 90, 90), -1, cv2.LINE_AA)
    cv2.line(ground, at(-0.17, 0.22), at(0.17, 0.22), (90, 30, 30), length(0.012), cv2.LINE_AA)
    return ground


@pytest.fixture(scope="module")
def generator() -> WarpGenerator:
    return WarpGenerator()


@pytest.fixture(scope="module")
def face(generator: WarpGenerator) -> WarpFace:
    return generator.prepare(AvatarFace(draw_avatar(), SOURCE))


def animate(generator: WarpGenerator, face: WarpFace, driving: Keypoints) -> RgbArray:
    return generator.animate([FaceRequest(face, driving)])[0]


def flow_of(face: WarpFace, driving: Keypoints) -> FloatArray:
    return backward_map(face, driving, Workspace(face.size))[0].copy()


def with_shift(which: dict[FaceKeypoint, tuple[float, float]], source: Keypoints = SOURCE) -> Keypoints:
    points = source.points.copy()
    for k, shift in which.items():
        points[k] += np.array(shift, np.float32)
    return Keypoints(points, source.jacobians)


def with_closed_eyes(amount: float) -> Keypoints:
    jacobians = SOURCE.jacobians.copy()
    jacobians[[K.LEFT_EYE, K.RIGHT_EYE], 1, 1] = amount
    return Keypoints(SOURCE.points, jacobians)


def box(x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
    def at(v: float) -> int:
        return round((v + 1) * 0.5 * (SIZE - 1))

    return slice(at(y0), at(y1)), slice(at(x0), at(x1))


def difference(one: RgbArray, other: RgbArray) -> FloatArray:
    apart: FloatArray = np.abs(one.astype(np.float32) - other.astype(np.float32)).max(axis=2)
    return apart


def determinants(flow: FloatArray) -> FloatArray:
    along_x, along_y = np.diff(flow, axis=1)[:-1], np.diff(flow, axis=0)[:, :-1]
    folded: FloatArray = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
    return folded


def smallest_determinant(flow: FloatArray) -> float:
    return float(determinants(flow).min())


def assert_no_fold(flow: FloatArray) -> None:
    """No area of the picture is turned over. Single pixels at the corners of a torn mouth may be, by differences alone:
    there the map has a kink, and a difference across it mixes the slopes of its two sides."""
    turned = determinants(flow) < -0.02
    assert turned.mean() < 0.002
    assert not cv2.erode(turned.astype(np.uint8), np.ones((2, 2), np.uint8)).any()


def test_no_motion_shows_the_avatar_as_it_is(generator: WarpGenerator, face: WarpFace) -> None:
    assert difference(animate(generator, face, SOURCE), draw_avatar()).max() <= 1


def test_faces_come_back_in_order_at_the_crops_size(generator: WarpGenerator, face: WarpFace) -> None:
    large = generator.prepare(AvatarFace(draw_avatar(300), SOURCE))
    faces = generator.animate([FaceRequest(face, SOURCE), FaceRequest(large, SOURCE), FaceRequest(face, SOURCE)])
    assert [f.shape for f in faces] == [(192, 192, 3), (300, 300, 3), (192, 192, 3)]
    assert all(f.dtype == np.uint8 for f in faces)
    assert not np.shares_memory(faces[0], faces[2])
    assert (face.size, large.size) == (192, 300)


def test_memory_does_not_grow_with_the_sizes_seen() -> None:
    generator = WarpGenerator()

    def run(size: int) -> RgbArray:
        face = generator.prepare(AvatarFace(draw_avatar(size), SOURCE))
        return animate(generator, face, with_shift({K.NOSE: (0.02, 0)}))

    first = run(64)
    tracemalloc.start()
    for size in range(65, 105):
        run(size)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 4_000_000  # forty workspaces would be twice that
    np.testing.assert_array_equal(run(64), first)


@pytest.mark.parametrize("k", [K.NOSE, K.LEFT_CHEEK, K.RIGHT_CHEEK, K.CHIN, K.LEFT_BROW])
def test_a_keypoint_takes_its_neighbourhood_along(face: WarpFace, k: FaceKeypoint) -> None:
    driving = with_shift({k: (0.03, -0.025)})
    x, y = (driving.points[k] + 1) * 0.5 * (SIZE - 1)
    at = np.array([[(x, y)]], np.float32)
    looked_up = cv2.remap(flow_of(face, driving), at, None, cv2.INTER_LINEAR)[0, 0]
    np.testing.assert_allclose(looked_up, (SOURCE.points[k] + 1) * 0.5 * (SIZE - 1), atol=0.8)


def test_a_moving_head_takes_hair_and_jaw_along(face: WarpFace) -> None:
    driving = with_shift(dict.fromkeys(FaceKeypoint, (0.08, 0.03)))
    flow = flow_of(face, driving)
    pixels = np.array([0.08, 0.03], np.float32) * 0.5 * (SIZE - 1)
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    head = (grid - flow)[box(-0.4, -0.45, 0.4, 0.5)]
    np.testing.assert_allclose(head, np.broadcast_to(pixels, head.shape), atol=0.6)
    hair = (grid - flow)[box(-0.2, -0.75, 0.2, -0.65)]
    assert hair[..., 0].min() > 0.4 * pixels[0]


def test_an_eye_closes_and_nothing_else_moves(generator: WarpGenerator, face: WarpFace) -> None:
    apart = difference(animate(generator, face, with_closed_eyes(0.1)), draw_avatar())
    for x in (-0.25, 0.25):
        assert apart[box(x - 0.08, -0.29, x + 0.08, -0.19)].max() > 60
    still = apart.copy()
    for x in (-0.25, 0.25):
        still[box(x - 0.42, -0.42, x + 0.42, -0.06)] = 0
    assert still.max() <= 2


def test_a_closed_eye_shows_less_of_the_iris(generator: WarpGenerator, face: WarpFace) -> None:
    region = box(-0.36, -0.34, -0.14, -0.14)
    dark = [
        int((animate(generator, face, with_closed_eyes(amount))[region].max(axis=2) < 120).sum())
        for amount in (1.0, 0.5, 0.1)
    ]
    assert dark[0] > dark[1] > dark[2]
    assert dark[2] < 0.35 * dark[0]


def test_a_closing_eye_that_shears_does_not_bend_the_brow(generator: WarpGenerator, face: WarpFace) -> None:
    """As measured on a real blink: the inverse of a flat Jacobian magnifies its shear tenfold."""
    jacobians = SOURCE.jacobians.copy()
    jacobians[K.LEFT_EYE] = [[0.9, 0.29], [0.1, 0.12]]
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    moved = np.abs(flow_of(face, Keypoints(FACE_POINTS, jacobians)) - grid)
    assert moved[box(-0.45, -0.6, 0.0, -0.40)].max() < 2
    assert moved[box(-0.36, -0.34, -0.14, -0.14)].max() > 3


def test_a_head_held_back_takes_its_features_along(face: WarpFace) -> None:
    """Far more motion than the crop has room for: the face stays a face, smaller motion of the whole."""
    flow = flow_of(face, with_shift(dict.fromkeys(FaceKeypoint, (0.9, 0.0))))
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    shift = (grid - flow)[box(-0.1, -0.4, 0.4, 0.4)]
    assert shift[..., 0].min() > 8
    assert np.ptp(shift[..., 0]) < 3


def test_parted_lips_show_a_dark_mouth_and_the_lower_lip_drops(generator: WarpGenerator, face: WarpFace) -> None:
    driving = with_shift({K.LOWER_LIP: (0, 0.12), K.CHIN: (0, 0.08)})
    picture = animate(generator, face, driving)
    inside = picture[box(-0.03, 0.29, 0.03, 0.31)]
    assert inside.max() < 140
    lip = picture[box(-0.02, 0.345, 0.02, 0.375)].astype(int)
    assert (lip[..., 0] - lip[..., 1]).mean() > 60  # the lower lip's red, where there was skin
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    forehead = (flow_of(face, driving) - grid)[box(-0.4, -0.8, 0.4, -0.35)]
    assert np.abs(forehead).max() < 1  # a speaking jaw does not nod the head


def test_lips_that_close_farther_than_the_avatars_paint_no_mouth(face: WarpFace) -> None:
    _, gap = backward_map(face, with_shift({K.LOWER_LIP: (0, -0.03)}), Workspace(SIZE))
    assert gap is None


def test_a_jacobian_and_its_avatars_cancel() -> None:
    turned = np.tile(np.array([[0.7, -0.4], [0.3, 0.9]], np.float32), (NUM_KEYPOINTS, 1, 1))
    source = Keypoints(FACE_POINTS, turned)
    generator = WarpGenerator()
    face = generator.prepare(AvatarFace(draw_avatar(), source))
    assert difference(animate(generator, face, source), draw_avatar()).max() <= 1


def test_motion_that_is_not_finite_shows_the_avatar_at_rest(generator: WarpGenerator, face: WarpFace) -> None:
    broken = Keypoints(np.full((NUM_KEYPOINTS, 2), np.nan, np.float32), UNIT)
    assert difference(animate(generator, face, broken), draw_avatar()).max() <= 1


SMALL_FACE = WarpGenerator().prepare(AvatarFace(draw_avatar(128), SOURCE))
values = st.floats(-4, 4, width=32)
points = hnp.arrays(np.float32, (NUM_KEYPOINTS, 2), elements=values)
jacobians = hnp.arrays(np.float32, (NUM_KEYPOINTS, 2, 2), elements=st.floats(-8, 8, width=32))


@given(points, jacobians)
@settings(max_examples=60, deadline=None)
def test_any_motion_on_the_wire_keeps_the_border_and_never_folds(p: FloatArray, j: FloatArray) -> None:
    generator, face, avatar = WarpGenerator(), SMALL_FACE, SMALL_FACE.rgb
    driving = Keypoints(p, j)
    flow = flow_of(face, driving)
    assert np.isfinite(flow).all()
    assert_no_fold(flow)
    grid = np.stack(np.meshgrid(np.arange(128), np.arange(128)), axis=-1).astype(np.float32)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_allclose(flow[edge], grid[edge], atol=0.01)
    picture = animate(generator, face, driving)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(picture[edge].astype(int) - avatar[edge].astype(int)).max() <= 1


@given(hnp.arrays(np.float32, (NUM_KEYPOINTS, 2), elements=st.floats(-0.125, 0.125, width=32)))
@settings(max_examples=40, deadline=None)
def test_ordinary_motion_never_folds(shift: FloatArray) -> None:
    assert_no_fold(flow_of(SMALL_FACE, Keypoints(FACE_POINTS + shift, UNIT)))


def test_a_mirrored_and_a_singular_jacobian_break_nothing(face: WarpFace) -> None:
    for bad in (np.diag([-1.0, 1.0]), np.zeros((2, 2)), np.ones((2, 2))):
        flow = flow_of(face, Keypoints(FACE_POINTS, np.tile(bad.astype(np.float32), (NUM_KEYPOINTS, 1, 1))))
        assert np.isfinite(flow).all()
        assert_no_fold(flow)


def test_larger_motion_moves_more_until_its_limit(face: WarpFace) -> None:
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    reached = [
        float(np.abs(grid - flow_of(face, with_shift(dict.fromkeys(FaceKeypoint, (s, 0.0))))).max())
        for s in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
    ]
    assert reached[:4] == sorted(reached[:4])
    assert reached[-1] < 0.3 * SIZE


@pytest.mark.parametrize("shape", [(64, 64), (64, 48, 3), (64, 64, 4), (16, 16, 3)])
def test_a_crop_that_is_no_square_rgb_picture_is_refused(generator: WarpGenerator, shape: tuple[int, ...]) -> None:
    with pytest.raises(AvatarShapeError, match=r"an avatar's face crop must be \(S, S, 3\) with S >= 32, not"):
        generator.prepare(AvatarFace(np.zeros(shape, np.uint8), SOURCE))


def test_keypoints_without_names_reach_by_their_spacing() -> None:
    """A learned encoder's keypoints come in an order of its own: no mouth is guessed, and the warp still works."""
    shuffled = FACE_POINTS[[7, 2, 0, 9, 5, 1, 8, 3, 6, 4]]
    assert is_face(FACE_POINTS)
    assert not is_face(shuffled)
    assert find_mouth(draw_avatar(), shuffled) is None
    sigma = reach_of(shuffled).sigma
    assert (sigma > 0.03).all()
    assert (sigma <= 0.35).all()
    source = Keypoints(shuffled, UNIT)
    face = WarpGenerator().prepare(AvatarFace(draw_avatar(), source))
    driving = Keypoints(shuffled + np.array([0.05, 0], np.float32), UNIT)
    assert smallest_determinant(flow_of(face, driving)) > 0


def test_the_lips_line_is_found_where_the_picture_shows_it() -> None:
    mouth = find_mouth(draw_avatar(), FACE_POINTS)
    assert mouth is not None
    assert mouth.closed
    assert mouth.centre_y == pytest.approx(0.22, abs=0.012)
    assert abs(mouth.bend) < 0.02
    assert abs(mouth.tilt) < 0.02


def test_teeth_between_the_lips_are_seen() -> None:
    smiling = draw_avatar()
    smiling[box(-0.13, 0.20, 0.13, 0.25)] = 240
    mouth = find_mouth(smiling, FACE_POINTS)
    assert mouth is not None
    assert not mouth.closed


def test_large_eyes_under_high_brows_reach_farther() -> None:
    high = FACE_POINTS.copy()
    high[[K.LEFT_BROW, K.RIGHT_BROW], 1] -= 0.08
    assert reach_of(high).sigma[K.LEFT_EYE, 1] > 1.3 * reach_of(FACE_POINTS).sigma[K.LEFT_EYE, 1]
    assert reach_of(high).stretch[K.LEFT_EYE] > 1.3 * reach_of(FACE_POINTS).stretch[K.LEFT_EYE]


def test_the_lips_of_a_tilted_head_are_found_along_its_tilt() -> None:
    angle = 15.0
    turn = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), -angle, 1)  # clockwise on the screen
    tilted: RgbArray = cv2.warpAffine(draw_avatar(), turn, (SIZE, SIZE))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    mouth = find_mouth(tilted, (FACE_POINTS @ np.array([[c, s], [-s, c]])).astype(np.float32))
    assert mouth is not None
    assert mouth.tilt / mouth.half_width == pytest.approx(np.tan(np.radians(angle)), abs=0.08)
