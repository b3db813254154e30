"""What the machine can do is measured once, and remembered only if it is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mien_generator import measure as measuring
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpFace, WarpGenerator
from mien_generator.measure import Measurement, measured_speed, speed_file

WARP = Rung("warp", WarpGenerator(), on_device=False)
FAST = Measurement(tiers=[], warp_s=0.001, finish_s=0.002, noisy=False)


class CountingFaces(WarpGenerator):
    """A device that remembers the batches it was asked for."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        assert avatar.region is not None, "a device is measured with all that it does for a frame"
        return super().prepare(avatar)

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        self.batches.append(len(requests))
        return super().animate(requests)


def test_every_tier_is_measured_at_batches_that_are_worth_it() -> None:
    device = CountingFaces()
    measurement = measuring.measure(
        Ladder((Rung("counting-384", device, on_device=True), WARP)), "libx264", max_batch=4
    )
    speed = measurement.speed()
    assert speed.warp_s > 0
    assert speed.finish_s > 0
    assert len(speed.device) == 1
    assert device.batches[0] == 1
    assert max(device.batches) <= 4
    assert [faces for faces, _ in speed.device[0].points] == sorted(set(device.batches))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Measurement]:
    """What each measurement comes to, instead of looking at this machine."""
    answers = [FAST]
    monkeypatch.setattr(measuring, "measure", lambda *_: answers[-1])
    return answers


def test_it_is_measured_once(measured: list[Measurement], tmp_path: Path) -> None:
    ladder = Ladder((WARP,))
    assert measured_speed(ladder, "libx264", 16, 2.0, tmp_path) == FAST
    measured.append(FAST.model_copy(update={"warp_s": 9.0}))
    assert measured_speed(ladder, "libx264", 16, 2.0, tmp_path) == FAST
    assert measured_speed(ladder, "libx264", 16, 4.0, tmp_path).warp_s == 9.0, "with other cores it is measured anew"
    assert measured_speed(ladder, "h264_nvenc", 16, 2.0, tmp_path).warp_s == 9.0
    other = Ladder((WARP,), model="another")
    assert measured_speed(other, "libx264", 16, 2.0, tmp_path).warp_s == 9.0


def test_the_figures_of_a_busy_machine_are_not_stored(measured: list[Measurement], tmp_path: Path) -> None:
    measured.append(FAST.model_copy(update={"noisy": True, "warp_s": 9.0}))
    assert measured_speed(Ladder((WARP,)), "libx264", 16, 2.0, tmp_path).warp_s == 9.0
    measured.append(FAST)
    assert measured_speed(Ladder((WARP,)), "libx264", 16, 2.0, tmp_path) == FAST


@pytest.mark.parametrize(
    "content",
    [b"no json", b"{}", b'{"tiers":[[[4,0.1],[1,0.2]]],"warp_s":1,"finish_s":1,"noisy":false}',
     b'{"tiers":[],"warp_s":0,"finish_s":1,"noisy":false}'],
)  # fmt: skip
def test_a_broken_memory_is_measured_over(measured: list[Measurement], tmp_path: Path, content: bytes) -> None:
    path = tmp_path / speed_file(Ladder((WARP,)), "libx264", 16, 2.0)
    path.write_bytes(content)
    assert measured_speed(Ladder((WARP,)), "libx264", 16, 2.0, tmp_path) == FAST
    assert Measurement.model_validate_json(path.read_bytes()) == FAST
    assert list(tmp_path.iterdir()) == [path], "nothing half written stays"


def test_a_folder_that_cannot_be_written_only_costs_time(measured: list[Measurement], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert measured_speed(Ladder((WARP,)), "libx264", 16, 2.0, blocked / "mien") == FAST
