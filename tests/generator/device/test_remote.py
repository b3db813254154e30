"""A worker and the device in two processes: both real ends, joined by a socket and shared memory."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import UserList
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from generator.device.connections import PATIENCE_S, Connected, Worker, avatar, connected, motion, picture, until

from mien_generator.device import wire
from mien_generator.device.contract import DeviceLost
from mien_generator.device.remote import PreparedThere
from mien_generator.device.slots import MOST_SESSIONS
from mien_generator.device.wire import Kind, WireAsk
from mien_generator.face.contract import AvatarFace, FaceRefused, YuvPatch
from mien_generator.face.region import PasteRegion
from mien_generator.specimen import CROP, draw_speaker, face_of


@pytest.fixture
def device() -> Iterator[Connected]:
    with connected() as device:
        yield device


def hold_up(device: Connected, worker: Worker) -> int:
    """Let the device begin one face of this worker and not finish it. Returns the ticket."""
    prepared = worker.prepared(1)
    device.painter.may_draw.clear()
    ticket = worker.ask(1000, prepared)
    until(lambda: ticket in worker.begun_tickets)
    return ticket


# Faces


def test_every_session_gets_the_face_that_it_asked_for(device: Connected) -> None:
    worker = device.worker()
    prepared = {colour: worker.prepared(colour) for colour in (10, 20, 30)}
    for number in range(20):
        x = number / 100
        tickets = {colour: worker.ask(colour, one, x) for colour, one in prepared.items()}
        for colour, ticket in tickets.items():
            np.testing.assert_array_equal(worker.face(ticket), picture(colour, x))
    assert len(worker.faces) == 60
    assert worker.device.waits_s == 0
    assert not worker.errors


def test_a_patch_for_its_avatar_s_region_crosses_too(device: Connected) -> None:
    still, worker = draw_speaker(), device.worker()
    sent = AvatarFace(face_of(still).rgb, face_of(still).keypoints, PasteRegion.of(still, CROP))
    assert sent.region is not None
    face = worker.face(worker.ask(1, worker.device.prepare(sent, 0, False).result(PATIENCE_S)))
    assert isinstance(face, YuvPatch)
    np.testing.assert_array_equal(face.luma, sent.region.still[..., 0])
    np.testing.assert_array_equal(face.u, sent.region.still[::2, ::2, 1])
    np.testing.assert_array_equal(face.v, sent.region.still[::2, ::2, 2])


def test_a_face_stays_while_the_session_s_next_one_is_made(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    for number in range(6):
        first = worker.face(worker.ask(1, prepared, number / 10))
        second = worker.face(worker.ask(1, prepared, number / 10 + 0.05))
        np.testing.assert_array_equal(first, picture(10, number / 10))
        np.testing.assert_array_equal(second, picture(10, number / 10 + 0.05))


def test_requests_of_two_workers_share_a_batch(device: Connected) -> None:
    one, other = device.worker(), device.worker()
    of_one, of_other = one.prepared(10), other.prepared(20)
    hold_up(device, one)
    tickets = one.ask(1, of_one, 0.1), other.ask(1, of_other, 0.2)
    until(lambda: device.waiting() == 2)
    device.painter.may_draw.set()
    np.testing.assert_array_equal(one.face(tickets[0]), picture(10, 0.1))
    np.testing.assert_array_equal(other.face(tickets[1]), picture(20, 0.2))
    assert sorted(device.painter.batches[-1]) == [10, 20]


def test_each_tier_makes_its_own_faces() -> None:
    with connected(tiers=2) as device:
        worker = device.worker()
        best, second = worker.prepared(10, tier=0), worker.prepared(10, tier=1)
        worker.face(worker.ask(1, best, tier=0))
        worker.face(worker.ask(1, second, tier=1))
        assert [painter.batches for painter in device.painters] == [[[10]], [[10]]]


def test_newer_motion_replaces_a_request_that_no_batch_has_taken(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    held = hold_up(device, worker)
    older, newer = worker.ask(1, prepared, 0.1), worker.ask(1, prepared, 0.2)
    worker.received()
    device.painter.may_draw.set()
    np.testing.assert_array_equal(worker.face(newer), picture(10, 0.2))
    assert worker.draws(prepared)
    assert set(worker.faces) == {held, newer, *worker.begun_tickets} - {older}
    assert older not in worker.begun_tickets
    assert worker.device.waits_s == 0, "the older request waits for nothing"


def test_a_request_that_was_withdrawn_makes_no_face(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    hold_up(device, worker)
    withdrawn, kept = worker.ask(1, prepared), worker.ask(2, prepared)
    worker.device.withdraw(1)
    worker.received()
    device.painter.may_draw.set()
    worker.face(kept)
    assert worker.draws(prepared, session=1), "the session may ask again"
    assert withdrawn not in worker.faces
    assert withdrawn not in worker.begun_tickets


def test_a_face_that_was_withdrawn_too_late_goes_nowhere(device: Connected) -> None:
    worker = device.worker()
    held = hold_up(device, worker)
    worker.device.withdraw(1000)
    assert worker.device.waits_s == 0
    device.painter.may_draw.set()
    assert worker.draws(worker.prepared(10))
    assert held not in worker.faces


def test_a_session_that_was_forgotten_gives_its_slots_back(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    for session in range(MOST_SESSIONS + 3):
        assert worker.draws(prepared, session)
        worker.device.forget(session)
    assert not worker.errors


def test_more_sessions_than_slots_are_refused_by_name_and_the_others_go_on(device: Connected) -> None:
    worker = device.worker(starts=False)
    for session in range(MOST_SESSIONS):
        worker.ask(session, PreparedThere(1))
    ticket = worker.ask(MOST_SESSIONS, PreparedThere(1))
    until(lambda: ticket in worker.errors)
    assert worker.errors == {ticket: "more than 512 sessions of one worker use the device"}


def test_a_face_that_fails_alone_fails_for_its_session_only(device: Connected) -> None:
    one, other = device.worker(), device.worker()
    poisoned, healthy, of_other = one.prepared(66), one.prepared(10), other.prepared(20)
    device.painter.failing = {66}
    hold_up(device, one)
    failing, made, of_others = one.ask(1, poisoned), one.ask(2, healthy), other.ask(1, of_other)
    until(lambda: device.waiting() == 3)
    device.painter.may_draw.set()
    np.testing.assert_array_equal(one.face(made), picture(10, 0))
    np.testing.assert_array_equal(other.face(of_others), picture(20, 0))
    until(lambda: failing in one.errors)
    assert one.errors == {failing: "a face cannot be made"}
    assert not other.errors
    assert one.device.waits_s == 0
    assert device.thread.failure is None


# Preparations


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (FaceRefused("the device's memory is full"), FaceRefused("the device's memory is full")),
        (ValueError("no such picture"), ValueError("no such picture")),
        (RuntimeError("out of luck"), ValueError("out of luck")),
    ],
)
def test_an_avatar_that_cannot_be_prepared_says_why(device: Connected, error: Exception, heard: Exception) -> None:
    worker = device.worker()
    device.painter.errors[10] = error
    with pytest.raises(type(heard), match=f"^{heard}$"):
        worker.prepared(10)
    assert worker.draws(worker.prepared(20))


@pytest.mark.parametrize("tier", [2, 200])
def test_an_avatar_for_a_tier_that_is_not_there_is_refused(device: Connected, tier: int) -> None:
    worker = device.worker()
    with pytest.raises(ValueError, match="the device has no tier"):
        worker.prepared(10, tier)
    assert worker.draws(worker.prepared(20))


def test_a_preparation_ahead_of_need_waits_for_the_others(device: Connected) -> None:
    worker = device.worker()
    device.painter.may_prepare.clear()
    preparing = [worker.prepare(10)]
    until(lambda: device.painter.preparing == 1)
    preparing += [worker.prepare(20, ahead=True), worker.prepare(30), worker.prepare(40)]
    until(lambda: device.preparations() == 3)
    device.painter.may_prepare.set()
    wait(preparing, PATIENCE_S)
    assert [one().colour for one in device.painter.prepared if one() is not None] == [10, 30, 40, 20]  # type: ignore[union-attr]


def test_a_prepared_avatar_is_freed_on_both_sides(device: Connected) -> None:
    worker = device.worker()
    kept, released = worker.prepared(10), worker.prepared(20)
    assert device.painter.alive == 2
    ticket = worker.ask(1, released)
    worker.face(ticket)
    del released
    until(lambda: device.painter.alive == 1)
    assert worker.draws(kept)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the memory among a process' open files")
def test_avatars_leave_no_file_open(device: Connected) -> None:
    worker = device.worker()
    kept = [worker.prepared(10)]
    before = memory_files()
    kept += [worker.prepared(colour) for colour in range(20)]
    until(lambda: memory_files() <= before)
    assert worker.draws(kept[-1])


def memory_files() -> int:
    return sum(
        Path(f"/proc/self/fd/{name}").resolve().name.startswith("memfd:mien") for name in os.listdir("/proc/self/fd")
    )


def test_an_avatar_stays_while_a_face_of_it_is_asked_for(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    hold_up(device, worker)
    ticket = worker.ask(1, prepared, 0.1)
    del prepared
    gc.collect()
    device.painter.may_draw.set()
    np.testing.assert_array_equal(worker.face(ticket), picture(10, 0.1))
    until(lambda: device.painter.alive == 0)


def test_an_avatar_whose_session_has_given_up_is_freed(device: Connected) -> None:
    worker = device.worker()
    device.painter.may_prepare.clear()
    assert worker.prepare(10).cancel()
    device.painter.may_prepare.set()
    kept = worker.prepared(20)
    until(lambda: device.painter.alive == 1)
    assert worker.draws(kept)


def test_an_avatar_that_is_freed_while_a_message_is_sent_holds_up_nothing(device: Connected) -> None:
    """The garbage collector may free it anywhere, also in the middle of a message."""
    worker = device.worker()
    kept, freed = worker.prepared(10), [worker.prepared(20)]

    class Descriptors(UserList[int]):
        def __iter__(self) -> Iterator[int]:
            freed.clear()
            return super().__iter__()

    with open(os.devnull) as file:
        args = (wire.pack_number(Kind.WITHDRAW, 5), Descriptors([file.fileno()]))
        sending = threading.Thread(target=worker.link.send, args=args, daemon=True)
        sending.start()
        sending.join(PATIENCE_S / 3)
    assert not freed, "it was freed in the middle"
    assert not sending.is_alive()
    until(lambda: device.painter.alive == 1)
    assert worker.draws(kept)


# The end of one side


def test_a_device_that_is_lost_is_told_to_every_worker(device: Connected) -> None:
    one, other = device.worker(), device.worker()
    of_one = one.prepared(10)
    hold_up(device, one)
    pending = one.ask(1, of_one)
    one.received()
    preparing = [other.prepare(20), other.prepare(30, ahead=True)]
    until(lambda: device.preparations() == 2)
    device.painter.is_lost = True
    device.painter.may_draw.set()
    for worker in (one, other):
        until(lambda worker=worker: worker.device.is_lost and bool(worker.reasons))  # type: ignore[misc]
        assert worker.reasons == ["its process has ended"], "once"
        assert worker.device.waits_s == 0, "nothing waits for a device that is gone"
        with pytest.raises(DeviceLost):
            worker.prepared(40)
    for one_preparing in preparing:
        with pytest.raises(DeviceLost):
            one_preparing.result(PATIENCE_S)
    assert one.ask(2, of_one) not in one.faces
    one.device.withdraw(2)
    one.device.forget(1)
    assert pending not in one.faces
    assert device.thread.failure == "the device has failed: the device fell off the bus"


def test_a_device_s_end_of_the_connection_that_ends_is_told(device: Connected) -> None:
    worker, other = device.worker(), device.worker()
    of_other = other.prepared(20)
    hold_up(device, worker)
    preparing = worker.prepare(30)
    device.end(worker)
    until(lambda: bool(worker.reasons))
    with pytest.raises(DeviceLost, match="the device is gone"):
        preparing.result(PATIENCE_S)
    device.painter.may_draw.set()
    assert other.draws(of_other)


def test_a_worker_that_ends_takes_its_requests_and_avatars_with_it(device: Connected) -> None:
    ends, stays = device.worker(), device.worker()
    prepared, of_stays = ends.prepared(10), stays.prepared(20)
    hold_up(device, stays)
    ends.ask(1, prepared)
    ends.prepare(30)
    until(lambda: device.waiting() == 1 and device.preparations() == 1)
    ends.device.close()
    until(lambda: device.waiting() == 0 and device.preparations() == 0)
    until(lambda: bool(ends.reasons))
    device.painter.may_draw.set()
    assert stays.draws(of_stays)
    assert all(10 not in batch for batch in device.painter.batches)
    until(lambda: device.painter.alive == 1)


def test_an_avatar_that_was_being_prepared_for_a_worker_that_ended_is_freed(device: Connected) -> None:
    ends, stays = device.worker(), device.worker()
    device.painter.may_prepare.clear()
    ends.prepare(10)
    until(lambda: device.painter.preparing == 1)
    ends.device.close()
    until(lambda: device.workers() == 1)
    device.painter.may_prepare.set()
    of_stays = stays.prepared(20)
    gc.disable()
    try:
        until(lambda: device.painter.alive == 1)
    finally:
        gc.enable()
    assert stays.draws(of_stays)


def test_a_worker_that_does_not_read_is_cut_off_and_the_others_are_served(device: Connected) -> None:
    stuck, other = device.worker(starts=False, buffer_bytes=4096), device.worker()
    of_other = other.prepared(20)
    stuck.prepare(10)
    until(lambda: device.painter.alive == 2)
    there = PreparedThere(1)
    until(lambda: stuck.ask(1, there) > 0 and device.workers() == 1)
    assert other.draws(of_other)
    stuck.device.start()
    until(lambda: bool(stuck.reasons))
    assert stuck.device.is_lost
    until(lambda: device.painter.alive == 1)


# Workers that are wrong


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00nothing",
        bytes([Kind.ASK]) + b"short",
        bytes([Kind.SLOTS]),
        wire.pack_prepare(5, 0, False),
        bytes([Kind.WITHDRAW]),
        wire.pack_number(Kind.PREPARED, 1),
        wire.pack_begun([1]),
        wire.pack_ask(WireAsk(1, 1, 0, 1, 2 * MOST_SESSIONS, 1.0, motion(0))),
        wire.pack_ask(WireAsk(1, 1, 1, 1, 0, 1.0, motion(0))),
        wire.pack_ask(WireAsk(1, 1, 9, 1, 0, 1.0, motion(0))),
    ],
    ids=[
        "empty", "no kind", "half a request", "no memory", "no avatar", "no session", "an answer", "another answer",
        "no such slot", "a tier without a device", "no such tier",
    ],
)  # fmt: skip
def test_a_worker_that_sends_nonsense_is_cut_off_alone(device: Connected, message: bytes) -> None:
    wrong, other = device.worker(), device.worker()
    of_wrong, of_other = wrong.prepared(10), other.prepared(20)
    assert of_wrong.number == 1
    wrong.link.send(message)
    until(lambda: bool(wrong.reasons))
    assert other.draws(of_other)
    assert device.thread.failure is None


def test_a_face_of_an_avatar_that_is_not_prepared_fails_instead_of_waiting_for_ever(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    ticket = worker.ask(1, PreparedThere(77))
    until(lambda: ticket in worker.errors)
    assert worker.errors == {ticket: "its avatar is not prepared"}
    assert worker.device.waits_s == 0
    assert worker.draws(prepared)


def test_a_picture_that_fits_no_slot_fails_for_its_session_only(device: Connected) -> None:
    worker = device.worker()
    large, prepared = AvatarFace(avatar(1).rgb, avatar(1).keypoints, huge_region()), worker.prepared(10)
    ticket = worker.ask(1, worker.device.prepare(large, 0, False).result(PATIENCE_S))
    until(lambda: ticket in worker.errors)
    assert worker.errors == {ticket: "a picture of 960000 bytes does not fit into a slot"}
    assert worker.draws(prepared)
    assert device.thread.failure is None


def huge_region() -> PasteRegion:
    return PasteRegion(np.zeros((800, 800, 3), np.uint8), 0, 0, 800, 0, 0)


def test_a_device_that_sends_nonsense_is_lost(device: Connected) -> None:
    worker = device.worker()
    worker.prepared(10)
    device.say(worker, wire.pack_number(Kind.RELEASE, 1))
    until(lambda: bool(worker.reasons))
    assert worker.reasons == ["the device sent RELEASE"]
    with pytest.raises(DeviceLost):
        worker.prepared(20)


# Waiting


def test_the_longest_wait_grows_while_the_device_hangs(device: Connected) -> None:
    worker = device.worker()
    prepared = worker.prepared(10)
    assert worker.device.waits_s == 0
    held = hold_up(device, worker)
    before_s = worker.device.waits_s
    until(lambda: worker.device.waits_s >= before_s + 0.05)
    other = worker.ask(1, prepared)
    before_s = worker.device.waits_s
    assert before_s >= 0.05, "it is that of the session that has waited longest"
    worker.ask(1000, prepared)
    assert worker.device.waits_s >= before_s, "newer motion is no answer"
    device.painter.may_draw.set()
    worker.face(held)
    worker.face(other)
    assert worker.draws(prepared, session=1000)
    assert worker.device.waits_s == 0
