"""The shared memory of faces: what one side writes the other reads, and which session has which slots."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.device.slots import MOST_SESSIONS, SLOT_BYTES, Shape, Slots, SlotsFull, SlotTable, anonymous_file
from mien_generator.face.contract import MAX_FACE_SIZE, FacePicture, RgbArray, YuvPatch
from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH, PasteRegion
from mien_shared.avatars import FaceBox

LAST_SLOT = 2 * MOST_SESSIONS - 1


def two_sides() -> tuple[Slots, Slots]:
    """The same memory, mapped twice."""
    descriptor = Slots.create()
    try:
        return Slots(descriptor), Slots(descriptor)
    finally:
        os.close(descriptor)


def rgb_of(height: int, width: int, seed: int = 0) -> RgbArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def patch_of(height: int, width: int, seed: int = 0) -> YuvPatch:
    planes = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    half = (slice(height // 2), slice(width // 2))
    return YuvPatch(planes[0], planes[1][half], planes[2][half])


def assert_same(read: FacePicture, written: FacePicture) -> None:
    if isinstance(written, YuvPatch):
        assert isinstance(read, YuvPatch)
        for name in ("luma", "u", "v"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    else:
        assert not isinstance(read, YuvPatch)
        np.testing.assert_array_equal(read, written)


SIDES = two_sides()
SLOTS = st.sampled_from([0, 1, 500, LAST_SLOT - 1, LAST_SLOT])


@given(st.integers(1, 300), st.integers(1, 300), SLOTS)
def test_an_rgb_face_is_read_as_it_was_written(height: int, width: int, slot: int) -> None:
    device, worker = SIDES
    picture = rgb_of(height, width, seed=slot)
    assert_same(worker.read(slot, device.write(slot, picture)), picture)


@given(st.integers(1, 200), st.integers(1, 200), SLOTS)
def test_a_patch_is_read_as_it_was_written(half_height: int, half_width: int, slot: int) -> None:
    device, worker = SIDES
    picture = patch_of(2 * half_height, 2 * half_width, seed=slot)
    assert_same(worker.read(slot, device.write(slot, picture)), picture)


def test_a_face_that_lies_otherwise_in_memory_is_read_as_it_was_written() -> None:
    device, worker = two_sides()
    picture = rgb_of(100, 200)[::2, ::-1]
    assert_same(worker.read(0, device.write(0, picture)), picture)


def test_slots_do_not_overlap() -> None:
    device, worker = two_sides()
    pictures = {slot: patch_of(720, 722, seed=slot) for slot in (0, 1, 2, 3, LAST_SLOT - 1, LAST_SLOT)}
    shapes = {slot: device.write(slot, picture) for slot, picture in pictures.items()}
    for slot, picture in pictures.items():
        assert_same(worker.read(slot, shapes[slot]), picture)


def test_a_picture_is_the_memory_itself() -> None:
    device, worker = two_sides()
    read = worker.read(5, device.write(5, rgb_of(64, 64)))
    newer = rgb_of(64, 64, seed=1)
    device.write(5, newer)
    assert_same(read, newer)


@pytest.mark.parametrize("x", [0, 1])
def test_the_largest_patch_and_the_largest_face_fit(x: int) -> None:
    still = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    height, width = PasteRegion.of(still, FaceBox(x=x, y=0, size=FRAME_HEIGHT)).shape
    device, worker = two_sides()
    for picture in (patch_of(height, width), rgb_of(MAX_FACE_SIZE, MAX_FACE_SIZE), rgb_of(512, 512)):
        assert_same(worker.read(LAST_SLOT, device.write(LAST_SLOT, picture)), picture)


@pytest.mark.parametrize(
    ("picture", "size"), [(rgb_of(513, 512), 787_968), (patch_of(726, 726), 790_614), (rgb_of(1, 262_145), 786_435)]
)
def test_a_larger_picture_is_refused(picture: FacePicture, size: int) -> None:
    device, worker = two_sides()
    shape = device.write(0, rgb_of(512, 512, seed=1))
    with pytest.raises(ValueError, match=rf"^a picture of {size} bytes does not fit into a slot$"):
        device.write(0, picture)
    assert_same(worker.read(0, shape), rgb_of(512, 512, seed=1))


@pytest.mark.parametrize(
    "shape", [Shape(False, 600, 600), Shape(True, 724, 726), Shape(True, 3, 5), Shape(False, 65535, 65535)]
)
def test_a_shape_that_no_slot_holds_is_refused(shape: Shape) -> None:
    _, worker = two_sides()
    with pytest.raises(ValueError, match="cannot reshape"):
        worker.read(0, shape)


def test_there_is_no_slot_beyond_the_last() -> None:
    device, worker = two_sides()
    with pytest.raises(IndexError):
        device.write(LAST_SLOT + 1, rgb_of(2, 2))
    with pytest.raises(IndexError):
        worker.read(LAST_SLOT + 1, Shape(False, 2, 2))


def test_memory_of_another_size_is_refused() -> None:
    descriptor = anonymous_file(2 * MOST_SESSIONS * SLOT_BYTES - 1)
    try:
        with pytest.raises(ValueError, match="mmap length is greater than file size"):
            Slots(descriptor)
    finally:
        os.close(descriptor)


# Processes

WRITER = """
import sys
import numpy as np
from mien_generator.device.slots import Slots

slots = Slots(int(sys.argv[1]))
shape = slots.write(7, np.full((10, 12, 3), 200, np.uint8))
print(shape.is_patch, shape.height, shape.width, flush=True)
sys.stdin.readline()
slots.write(7, np.full((10, 12, 3), 100, np.uint8))
print("again", flush=True)
sys.stdin.readline()
"""


def test_a_face_crosses_to_another_process_and_outlives_it() -> None:
    descriptor = Slots.create()
    worker = Slots(descriptor)
    device = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(descriptor)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(descriptor)
    assert device.stdin is not None
    assert device.stdout is not None
    try:
        assert device.stdout.readline() == "False 10 12\n"
        read = worker.read(7, Shape(False, 10, 12))
        assert_same(read, np.full((10, 12, 3), 200, np.uint8))
        device.stdin.write("\n")
        device.stdin.flush()
        assert device.stdout.readline() == "again\n"
        assert_same(read, np.full((10, 12, 3), 100, np.uint8))
    finally:
        device.kill()
        device.communicate()
    assert_same(read, np.full((10, 12, 3), 100, np.uint8))
    worker.write(7, rgb_of(10, 12))
    assert_same(read, rgb_of(10, 12))


def test_the_memory_has_no_name_and_goes_with_its_last_mapping() -> None:
    descriptor = Slots.create()
    file = os.fstat(descriptor)
    assert file.st_nlink == 0, "only processes that have it open keep it"
    assert file.st_blocks == 0, "it takes memory when it is written"
    slots = Slots(descriptor)
    slots.write(9, rgb_of(64, 64))
    assert 0 < os.fstat(descriptor).st_blocks * 512 <= SLOT_BYTES
    os.close(descriptor)
    if sys.platform == "linux":
        assert mappings(file.st_ino) == 1
        del slots
        assert mappings(file.st_ino) == 0


def mappings(inode: int) -> int:
    """How many times this process has mapped a file: the fifth field of a mapping is its file's number."""
    return sum(line.split()[4] == str(inode) for line in Path("/proc/self/maps").read_text().splitlines())


# Which session has which slots


def test_a_session_uses_two_slots_in_turn() -> None:
    table = SlotTable()
    first = [table.next(7, replaces=False) for _ in range(6)]
    other = [table.next(8, replaces=False) for _ in range(2)]
    assert first == [first[0], first[1]] * 3
    assert len({*first, *other}) == 4


def test_a_request_that_replaces_another_keeps_its_slot() -> None:
    table = SlotTable()
    first = table.next(1, replaces=False)
    assert [table.next(1, replaces=True) for _ in range(3)] == [first] * 3
    second = table.next(1, replaces=False)
    assert second != first
    assert table.next(1, replaces=True) == second
    assert table.next(1, replaces=False) == first


def test_more_sessions_than_slots_are_refused_until_one_leaves() -> None:
    table = SlotTable(sessions=3)
    slots = [table.next(session, replaces=False) for session in range(3)]
    with pytest.raises(SlotsFull, match=r"^more than 3 sessions of one worker use the device$"):
        table.next(3, replaces=False)
    assert table.next(0, replaces=True) == slots[0], "the others keep theirs"
    table.release(1)
    assert table.next(3, replaces=False) // 2 == slots[1] // 2
    with pytest.raises(SlotsFull):
        table.next(1, replaces=False)


def test_a_session_without_slots_gives_none_back() -> None:
    table = SlotTable(sessions=1)
    table.release(5)
    table.next(1, replaces=False)
    table.release(1)
    table.release(1)
    table.next(2, replaces=False)
    with pytest.raises(SlotsFull):
        table.next(3, replaces=False)


SESSION = st.integers(0, 5)
STEPS = st.lists(st.one_of(st.tuples(SESSION, st.booleans()), SESSION), max_size=60)


@given(STEPS)
def test_no_two_sessions_ever_share_a_slot(steps: list[tuple[int, bool] | int]) -> None:
    table, newest = SlotTable(sessions=4), dict[int, int]()
    for step in steps:
        if isinstance(step, int):
            table.release(step)
            newest.pop(step, None)
            continue
        session, replaces = step
        try:
            slot = table.next(session, replaces)
        except SlotsFull:
            assert len(newest) == 4
            continue
        assert 0 <= slot < 8
        if session in newest:
            assert (slot == newest[session]) == replaces
            assert slot // 2 == newest[session] // 2
        newest[session] = slot
        assert len({slot // 2 for slot in newest.values()}) == len(newest)
