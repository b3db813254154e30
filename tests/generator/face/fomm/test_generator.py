from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch
from boxes import face_box

from mien_generator.face.contract import AvatarFace, FaceRefused, FaceRequest, YuvPatch, as_rgb
from mien_generator.face.fomm.checkpoint import FommWeights, random_weights, write_weights
from mien_generator.face.fomm.config import ConfigError, FommConfig
from mien_generator.face.fomm.device.devices import DeviceMissing
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.generator import FommGenerator, FommKeypointFinder, Precision, PreparedFomm
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_generator.frame.compositor import Compositor
from mien_shared.avatars import FaceBox
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

SIZE = 64


@pytest.fixture(scope="module")
def weights(small_config: FommConfig) -> FommWeights:
    return random_weights(small_config)


@pytest.fixture(scope="module")
def generator(weights: FommWeights) -> FommGenerator:
    return FommGenerator(weights, size=SIZE)


def _keypoints(seed: int) -> Keypoints:
    random = np.random.default_rng(seed)
    return Keypoints(
        random.uniform(-0.5, 0.5, (NUM_KEYPOINTS, 2)).astype(np.float32),
        (np.eye(2) + random.normal(0, 0.1, (NUM_KEYPOINTS, 2, 2))).astype(np.float32),
    )


def _avatar(seed: int, size: int = SIZE) -> AvatarFace:
    rgb = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return AvatarFace(rgb, _keypoints(seed + 100))


def _requests(generator: FommGenerator) -> list[FaceRequest[PreparedFomm]]:
    """Three avatars, one of them twice, each with a motion of its own."""
    avatars = [generator.prepare(_avatar(seed)) for seed in range(3)]
    return [FaceRequest(avatars[index], _keypoints(motion)) for motion, index in enumerate([0, 1, 2, 1])]


def _unsplit(network: OcclusionAwareGenerator, avatar: AvatarFace, driving: Keypoints) -> torch.Tensor:
    """The generator in the order of the paper, nothing shared between frames, all motions sampled from copies."""
    cpu = torch.device("cpu")
    picture = torch.from_numpy(avatar.rgb).permute(2, 0, 1)[None] / 255
    source, moved = KeypointTensors.of([avatar.keypoints], cpu), KeypointTensors.of([driving], cpu)
    dense = network.dense_motion_network
    blurred = torch.nn.functional.conv2d(picture, dense.down.weight, padding=6, groups=3)
    small = blurred[:, :, ::4, ::4]
    side = small.shape[2]
    axis = 2 * torch.arange(side) / (side - 1) - 1
    grid = torch.stack([axis.expand(side, side), axis[:, None].expand(side, side)], dim=-1)

    heatmaps, motions = [torch.zeros(side, side)], [grid]
    for k in range(NUM_KEYPOINTS):
        at, to = source.points[0, k], moved.points[0, k]
        bells = [torch.exp(-0.5 * ((grid - point) ** 2).sum(-1) / 0.01) for point in (to, at)]
        heatmaps.append(bells[0] - bells[1])
        linear = source.jacobians[0, k] @ torch.inverse(moved.jacobians[0, k])
        motions.append((grid - to) @ linear.T + at)
    channels = []
    for heatmap, motion in zip(heatmaps, motions, strict=True):
        channels += [heatmap[None, None], torch.nn.functional.grid_sample(small, motion[None], align_corners=False)]
    features = dense.hourglass(torch.cat(channels, dim=1))
    mask = torch.softmax(dense.mask(features), dim=1)[0]
    deformation = sum(mask[k][..., None] * motions[k] for k in range(len(motions)))
    occlusion = torch.sigmoid(dense.occlusion(features))

    x = network.first(picture)
    for block in network.down_blocks:
        x = block(x)
    x = torch.nn.functional.grid_sample(x, deformation[None], align_corners=False) * occlusion
    x = network.bottleneck(x)
    for block in network.up_blocks:
        x = block(x)
    return torch.sigmoid(network.final(x))


def test_split_equals_the_unsplit_network(weights: FommWeights, generator: FommGenerator) -> None:
    avatar, driving = _avatar(1), _keypoints(2)
    with torch.inference_mode():
        whole = _unsplit(weights.generator(), avatar, driving)
    split = generator.predict([FaceRequest(generator.prepare(avatar), driving)])
    assert whole.std() > 1e-3, "an untrained network whose picture says nothing would compare nothing"
    assert (split - whole).abs().max().item() < 1e-5


def test_a_batch_across_avatars_equals_one_by_one(generator: FommGenerator) -> None:
    requests = _requests(generator)
    together = generator.predict(requests)
    alone = torch.cat([generator.predict([request]) for request in requests])
    assert together.shape == (4, 3, SIZE, SIZE)
    assert (together - alone).abs().max().item() < 1e-5
    # Faces never swap: each differs from every other by far more than the tolerance.
    for i in range(4):
        for j in range(i):
            assert (together[i] - together[j]).abs().max().item() > 1e-3


def test_a_singular_driving_jacobian_harms_nobody_elses_face(generator: FommGenerator) -> None:
    requests = _requests(generator)
    flat = Keypoints(requests[1].driving.points, np.zeros((NUM_KEYPOINTS, 2, 2), np.float32))
    faces = generator.predict([requests[0], FaceRequest(requests[1].prepared, flat), *requests[2:]])
    assert torch.isfinite(faces).all()
    untouched = generator.predict(requests)
    for index in (0, 2, 3):
        assert (faces[index] - untouched[index]).abs().max().item() < 1e-5


def test_animate_gives_rounded_rgb_pictures(generator: FommGenerator) -> None:
    requests = _requests(generator)
    faces = [as_rgb(face) for face in generator.animate(requests)]
    expected = (generator.predict(requests) * 255).permute(0, 2, 3, 1).numpy()
    assert len(faces) == len(requests)
    for face, exact in zip(faces, expected, strict=True):
        assert face.dtype == np.uint8
        assert face.shape == (SIZE, SIZE, 3)
        assert face.flags.c_contiguous
        assert np.abs(face - exact).max() <= 0.5 + 1e-3


def test_no_request_no_face(generator: FommGenerator) -> None:
    assert generator.animate([]) == []


@pytest.mark.parametrize("size", [40, 200])
def test_a_crop_of_any_resolution_is_brought_to_size(generator: FommGenerator, size: int) -> None:
    prepared = generator.prepare(_avatar(1, size))
    assert prepared.size == SIZE
    assert as_rgb(generator.animate([FaceRequest(prepared, _keypoints(1))])[0]).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(("precision", "least_db"), [("float16", 55), ("bfloat16", 40)])
def test_half_precision_stays_close(
    weights: FommWeights, generator: FommGenerator, precision: Precision, least_db: float
) -> None:
    half = FommGenerator(weights, size=SIZE, precision=precision)
    assert half.bank.bytes_per_source == generator.bank.bytes_per_source / 2
    rounded, exact = (
        each.predict([FaceRequest(each.prepare(_avatar(seed)), _keypoints(seed + 7)) for seed in range(3)])
        for each in (half, generator)
    )
    assert rounded.dtype == torch.float32
    assert -10 * (rounded - exact).square().mean().log10().item() > least_db


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_cuda_agrees_with_the_cpu(weights: FommWeights, generator: FommGenerator, precision: Precision) -> None:
    on_device = FommGenerator(weights, size=SIZE, device="cuda", precision=precision)
    requests = [FaceRequest(on_device.prepare(_avatar(seed)), _keypoints(seed)) for seed in range(3)]
    exact = generator.animate([FaceRequest(generator.prepare(_avatar(seed)), _keypoints(seed)) for seed in range(3)])
    for face, reference in zip(on_device.animate(requests), exact, strict=True):
        assert np.abs(as_rgb(face).astype(int) - as_rgb(reference)).max() <= 5


def test_a_face_prepared_at_another_size_is_refused(weights: FommWeights, generator: FommGenerator) -> None:
    other = FommGenerator(weights, size=2 * SIZE).prepare(_avatar(1))
    with pytest.raises(ValueError, match=r"^the face was prepared at 128 pixels, but this generator makes 64$"):
        generator.animate([FaceRequest(other, _keypoints(1))])


def test_a_size_the_network_cannot_take(weights: FommWeights) -> None:
    with pytest.raises(ConfigError, match=r"^the picture size of this model must be a multiple of 32, not 80$"):
        FommGenerator(weights, size=80)


def test_weights_with_other_keypoints_than_a_packet_are_refused(small_config: FommConfig) -> None:
    with pytest.raises(ConfigError, match=r"^the weights have 5 keypoints, but a motion packet has 10$"):
        FommGenerator(random_weights(replace(small_config, num_keypoints=5)), size=SIZE)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("abacus", "torch does not know the device 'abacus'"),
        ("cuda:99", f"there is no device 'cuda:99': torch finds {torch.cuda.device_count()} CUDA devices"),
    ],
)
def test_a_device_that_is_not_there(weights: FommWeights, device: str, text: str) -> None:
    with pytest.raises(DeviceMissing) as error:
        FommGenerator(weights, size=SIZE, device=device)
    assert str(error.value) == text


def test_closed_generator_says_so(weights: FommWeights) -> None:
    generator = FommGenerator(weights, size=SIZE)
    prepared = generator.prepare(_avatar(1))
    generator.close()
    with pytest.raises(RuntimeError, match=r"^the generator is closed$"):
        generator.animate([FaceRequest(prepared, _keypoints(1))])


def test_loads_from_a_weights_file(weights: FommWeights, generator: FommGenerator, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    write_weights(weights, path)
    loaded = FommGenerator.load(path, size=SIZE)
    (face,), (expected,) = (
        each.animate([FaceRequest(each.prepare(_avatar(1)), _keypoints(2))]) for each in (loaded, generator)
    )
    np.testing.assert_array_equal(face, expected)


def test_keypoint_finder_is_the_weights_own_detector(weights: FommWeights) -> None:
    pictures = [_avatar(1).rgb, _avatar(2).rgb]
    found = FommKeypointFinder(weights).find(pictures)
    assert len(found) == 2
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = weights.keypoint_detector()(batch)
    for index, keypoints in enumerate(found):
        np.testing.assert_allclose(keypoints.points, expected.points[index].numpy(), atol=1e-5)
        np.testing.assert_allclose(keypoints.jacobians, expected.jacobians[index].numpy(), atol=1e-5)


def _placed(seed: int, box: FaceBox) -> tuple[AvatarFace, Compositor]:
    """An avatar in a smooth picture of its own, and that picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (18, 32, 3), np.uint8)
    still = np.asarray(cv2.resize(coarse, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
    crop = still[box.y : box.y + box.size, box.x : box.x + box.size].copy()
    compositor = Compositor(still, box)
    return AvatarFace(crop, _keypoints(seed + 100), compositor.region), compositor


def test_faces_finished_on_the_device_are_those_the_compositor_finishes(generator: FommGenerator) -> None:
    """Two ways to the same pictures: RGB through cv2, and patches; crops of three sizes in one batch."""
    boxes = [face_box(300, 100, SIZE), face_box(451, 61, 201), face_box(100, 101, 48), face_box(600, 200, SIZE)]
    avatars = [_placed(seed, box) for seed, box in enumerate(boxes)]
    plain = [generator.prepare(replace(avatar, region=None)) for avatar, _ in avatars]
    placed = [generator.prepare(avatar) for avatar, _ in avatars]
    by_cv2 = generator.animate([FaceRequest(face, _keypoints(motion)) for motion, face in enumerate(plain)])
    patches = generator.animate([FaceRequest(face, _keypoints(motion)) for motion, face in enumerate(placed)])
    for (_, compositor), face, patch in zip(avatars, by_cv2, patches, strict=True):
        assert isinstance(patch, YuvPatch)
        expected = compositor.compose(as_rgb(face)).to_ndarray().astype(int)
        difference = expected - compositor.compose(patch).to_ndarray()
        assert np.abs(difference).max() <= 2
        height, width = compositor.region.shape
        squared_error = np.square(difference).sum() / (1.5 * height * width)
        assert 10 * np.log10(255**2 / max(squared_error, 1e-3)) > 50  # dB; rounding alone


def test_one_run_of_the_device_or_several(weights: FommWeights, generator: FommGenerator) -> None:
    narrow = FommGenerator(weights, size=SIZE, max_batch=3)
    driven = [(_avatar(seed % 3), _keypoints(seed)) for seed in range(8)]
    faces, expected = (
        each.animate([FaceRequest(each.prepare(avatar), driving) for avatar, driving in driven])
        for each in (narrow, generator)
    )
    assert len(faces) == 8
    for face, reference in zip(faces, expected, strict=True):
        assert np.abs(as_rgb(face).astype(int) - as_rgb(reference)).max() <= 1


def test_a_padded_batch_gives_the_same_faces(weights: FommWeights, generator: FommGenerator) -> None:
    """As on a GPU: only a few sizes run, what is between them is filled up."""
    few = FommGenerator(weights, size=SIZE, batch_sizes=(1, 4))
    for count in (1, 2, 3, 4, 5):
        driven = [(_avatar(seed % 3), _keypoints(seed)) for seed in range(count)]
        made, expected = (
            each.predict([FaceRequest(each.prepare(avatar), driving) for avatar, driving in driven])
            for each in (few, generator)
        )
        assert made.shape == (count, 3, SIZE, SIZE)
        assert (made - expected).abs().max().item() < 1e-5


def test_batches_in_flight_do_not_touch_each_other(generator: FommGenerator) -> None:
    requests = _requests(generator)
    first, second = generator.submit(requests), generator.submit(requests[::-1])
    expected = [as_rgb(face) for face in generator.animate(requests)]
    for made, face in zip(generator.collect(first), expected, strict=True):
        np.testing.assert_array_equal(as_rgb(made), face)
    for made, face in zip(generator.collect(second), expected[::-1], strict=True):
        assert np.abs(as_rgb(made).astype(int) - face).max() <= 1


def test_the_same_avatar_is_held_once(weights: FommWeights) -> None:
    generator = FommGenerator(weights, size=SIZE)
    first, again, other = (generator.prepare(_avatar(seed)) for seed in (1, 1, 2))
    assert first is again
    assert generator.bank.in_use == 2
    del first
    assert generator.bank.in_use == 2  # the other session goes on
    del again
    assert generator.bank.in_use == 1
    del other
    assert generator.bank.in_use == 0


def test_a_place_that_was_freed_serves_the_next_avatar(weights: FommWeights, generator: FommGenerator) -> None:
    crowded = FommGenerator(weights, size=SIZE, max_avatars=2)
    stays, leaves = crowded.prepare(_avatar(1)), crowded.prepare(_avatar(2))
    with pytest.raises(FaceRefused, match=r"^the device has 2 avatars, which is its limit$"):
        crowded.prepare(_avatar(3))
    freed = leaves.row
    del leaves
    comes = crowded.prepare(_avatar(3))
    assert comes.row == freed
    made = crowded.predict([FaceRequest(stays, _keypoints(5)), FaceRequest(comes, _keypoints(6))])
    expected = generator.predict(
        [FaceRequest(generator.prepare(_avatar(seed)), _keypoints(motion)) for seed, motion in ((1, 5), (3, 6))]
    )
    assert (made - expected).abs().max().item() < 1e-5


def test_memory_that_runs_out_refuses_one_avatar_and_no_other(
    weights: FommWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = FommGenerator(weights, size=SIZE)
    held = generator.prepare(_avatar(1))

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(generator, "_fill", no_memory)
        with pytest.raises(FaceRefused, match=r"^the device's memory is too full for another avatar$"):
            generator.prepare(_avatar(2))
    assert generator.bank.in_use == 1
    comes = generator.prepare(_avatar(2))
    assert len(generator.animate([FaceRequest(held, _keypoints(1)), FaceRequest(comes, _keypoints(2))])) == 2


@pytest.mark.slow
def test_a_thousand_avatars_come_and_go_and_leave_nothing(weights: FommWeights) -> None:
    generator = FommGenerator(weights, size=32)
    visitors = [_placed(seed, box)[0] for seed, box in enumerate((face_box(300, 100, 32), face_box(301, 100, 40)))]

    def visit(seed: int) -> None:
        prepared = generator.prepare(replace(visitors[seed % 2], keypoints=_keypoints(seed)))
        assert generator.bank.in_use == 1
        if seed % 50 == 0:
            assert generator.animate([FaceRequest(prepared, _keypoints(seed))])

    for seed in (0, 1):
        visit(seed)
    before = _tensors_alive()
    for seed in range(1000):
        visit(seed)
    assert _tensors_alive() == before
    assert generator.bank.in_use == 0
    assert len(generator._known) == 0


def _tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def test_a_face_of_another_generator_is_refused(weights: FommWeights, generator: FommGenerator) -> None:
    foreign = FommGenerator(weights, size=SIZE).prepare(_avatar(1))
    with pytest.raises(ValueError, match=r"^the face was prepared by another generator$"):
        generator.animate([FaceRequest(foreign, _keypoints(1))])
