"""The stages of a turn, and which work comes next, with real sessions and a device that a test answers for."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mien_generator.device.contract import Ask, Made
from mien_generator.engine.board import Begin, Board, Finish
from mien_generator.engine.pipeline import Pipeline
from mien_generator.engine.session import Arrival, GeneratorSession, SessionAvatar
from mien_generator.engine.turn import FaceWanted, Stage, run
from mien_generator.face.contract import AvatarFace
from mien_generator.face.ladder import Tiers
from mien_generator.face.warp import WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import GeneratorMetrics
from mien_generator.specimen import CROP, draw_speaker, face_of
from mien_shared.bus.messages import EncodedFrame, SessionRecord
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

FPS, LAST = 30, 1
FACE = np.zeros((384, 384, 3), np.uint8)


STILL = draw_speaker()


class Time:
    """A clock that a test sets."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return 1_700_000_000.0 + self.now_s

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class NotedDevice:
    """A device that notes what it is asked. The test gives the answers."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.withdrawn: list[int] = []
        self.forgotten: list[int] = []

    def prepare(self, avatar: AvatarFace, tier: int, ahead: bool) -> Future[Any]:
        raise NotImplementedError

    def ask(self, request: Ask) -> None:
        self.asks.append(request)

    def withdraw(self, session: int) -> None:
        self.withdrawn.append(session)

    def forget(self, session: int) -> None:
        self.forgotten.append(session)


class Work:
    """A frame's work that needs one face, and what became of it."""

    def __init__(self, session: GeneratorSession, tier: int = 0) -> None:
        self.face: Made | None = None
        self.is_over = False
        self._wanted = FaceWanted(tier, session.avatar.prepared[tier], Keypoints.at_rest())
        self.coroutine: Coroutine[FaceWanted, Made | None, None] = self._run()

    async def _run(self) -> None:
        try:
            self.face = await self._wanted
        finally:
            self.is_over = True


class Bench:
    """A board with a device, a clock and the steps that a pool thread takes."""

    def __init__(self) -> None:
        self.clock, self.device = Time(), NotedDevice()
        self.board = Board(LAST, FPS, self.clock)
        self.board.device = self.device

    def add(self, name: str = "s", tier: int = 0) -> GeneratorSession:
        avatar = SessionAvatar(face_of(STILL))
        avatar.prepared = {tier: WarpGenerator().prepare(avatar.face) for tier in range(LAST + 1)}
        record = SessionRecord(session_id=name, avatar_id="a", created_at_ms=0)
        session = GeneratorSession(
            record, avatar, tier, Compositor(STILL, CROP), H264Encoder(), KeyframePolicy(), self.clock.now_s
        )
        assert self.board.add(session)
        return session

    def offer(self, session: GeneratorSession, sequence: int = 0) -> int:
        packet = MotionPacket(sequence, 0, Keypoints.at_rest())
        return self.board.offer(session, Arrival(packet, 128, 0, self.clock.now_s))

    def begin(self) -> Begin:
        work = self.board.take()
        assert isinstance(work, Begin)
        return work

    def ask(self, begin: Begin) -> Work:
        """Run a turn up to the face that it needs."""
        work = Work(begin.session)
        wanted = run(work.coroutine)
        assert wanted is not None
        self.board.asked(begin, work.coroutine, wanted)
        return work

    def asked(self, session: GeneratorSession) -> Work:
        """Motion comes for this session, and its turn asks for a face."""
        self.clock.now_s += 0.04
        self.offer(session)
        begin = self.begin()
        assert begin.session is session
        return self.ask(begin)

    def made(self) -> Made:
        """The device makes the face of the newest request."""
        ticket, made = self.device.asks[-1].ticket, Made(FACE, self.clock.now_s, self.clock.now_s)
        self.board.begun([ticket])
        self.board.made(ticket, made)
        return made


@pytest.fixture
def bench() -> Bench:
    return Bench()


def stage(session: GeneratorSession) -> Stage | None:
    return session.turn.stage if session.turn is not None else None


def has_work(bench: Bench) -> bool:
    """Whether a thread that asks for work now would get some. The time stands still."""
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(bench.board.take)
        try:
            return taking.result(0.1) is not None
        except TimeoutError:
            bench.board.clear()
            assert taking.result(30) is None
            return False


# The stages of a turn


def test_a_turn_goes_from_its_request_to_its_frame(bench: Bench) -> None:
    session = bench.add()
    work = bench.asked(session)
    (ask,) = bench.device.asks
    assert (ask.session, ask.tier, ask.prepared) == (session.serial, 0, session.avatar.prepared[0])
    assert stage(session) is Stage.ASKED
    bench.board.begun([ask.ticket])
    assert stage(session) is Stage.DRAWING
    assert bench.board.asker(ask.ticket) is session
    made = Made(FACE, 1.0, 2.0)
    bench.board.made(ask.ticket, made)
    assert stage(session) is Stage.DRAWN
    finish = bench.board.take()
    assert isinstance(finish, Finish)
    assert finish.turn.stage is Stage.FRAMING
    assert (session.turn, session.framing) == (None, finish.turn)
    finish.turn.finish()
    bench.board.framed(session)
    assert work.face is made
    assert session.framing is None
    assert bench.board.asker(ask.ticket) is None


def test_the_next_face_is_made_while_a_frame_is_encoded_and_no_third(bench: Bench) -> None:
    session = bench.add()
    bench.asked(session)
    bench.made()
    first = bench.board.take()
    assert isinstance(first, Finish)
    bench.asked(session)
    bench.made()
    assert stage(session) is Stage.DRAWN
    bench.clock.now_s += 0.04
    bench.offer(session)
    assert not has_work(bench), "the second frame waits for the first, and a third turn for the second"


def test_a_frame_that_is_done_lets_the_next_one_be_made(bench: Bench) -> None:
    session = bench.add()
    bench.asked(session)
    bench.made()
    bench.board.take()
    bench.asked(session)
    bench.made()
    bench.board.framed(session)
    second = bench.board.take()
    assert isinstance(second, Finish)
    assert second.turn is session.framing


def test_newer_motion_replaces_a_turn_that_only_waits(bench: Bench) -> None:
    session = bench.add()
    older = bench.asked(session)
    deadline_s, ticket = bench.device.asks[0].deadline_s, bench.device.asks[0].ticket
    bench.clock.now_s += 0.04
    bench.offer(session, 2)
    begin = bench.begin()
    assert begin.replaces
    assert older.is_over
    assert older.face is None
    assert begin.deadline_s == deadline_s, "it has waited as long"
    bench.ask(begin)
    bench.board.begun([ticket])
    bench.board.made(ticket, Made(FACE, 1.0, 1.0))
    assert stage(session) is Stage.ASKED, "an answer to the older request is none to the newer one"
    bench.made()
    assert stage(session) is Stage.DRAWN


@pytest.mark.parametrize("is_made", [False, True])
def test_newer_motion_does_not_replace_a_face_that_is_being_made(bench: Bench, is_made: bool) -> None:
    session = bench.add()
    work = bench.asked(session)
    bench.board.begun([bench.device.asks[0].ticket])
    if is_made:
        bench.made()
    bench.clock.now_s += 0.04
    bench.offer(session, 2)
    if is_made:
        assert isinstance(bench.board.take(), Finish)
    else:
        assert not has_work(bench)
        assert stage(session) in {Stage.DRAWING, None}
        assert len(bench.device.asks) == 1
    assert work.face is None


def test_a_request_without_newer_motion_is_not_repeated(bench: Bench) -> None:
    session = bench.add()
    bench.asked(session)
    bench.clock.now_s += 10.0
    assert not has_work(bench)


def test_a_session_is_begun_by_one_thread_at_a_time(bench: Bench) -> None:
    session = bench.add()
    bench.clock.now_s = 1.0
    bench.offer(session)
    bench.begin()
    bench.clock.now_s = 2.0
    bench.offer(session)
    assert not has_work(bench)


def test_a_turn_that_needed_no_face_lets_the_next_one_begin(bench: Bench) -> None:
    session = bench.add()
    bench.clock.now_s = 1.0
    bench.offer(session)
    bench.board.began(bench.begin().session)
    bench.clock.now_s = 2.0
    bench.offer(session)
    assert bench.begin().session is session


@pytest.mark.parametrize("older", ["drawn", "alone"])
def test_turns_for_the_device_come_first_and_then_the_earliest_deadline(bench: Bench, older: str) -> None:
    sessions = {}
    for name in sorted(["drawn", "alone"], key=lambda name: name != older):
        sessions[name] = bench.add(name, tier=LAST if name == "alone" else 0)
        bench.clock.now_s += 0.02
    bench.asked(sessions["drawn"])
    bench.made()
    bench.offer(sessions["alone"])
    asking = bench.add("asking")
    bench.offer(asking)
    bench.clock.now_s += 0.025
    first = bench.begin()
    assert first.session is asking
    bench.ask(first)
    works = [bench.board.take() for _ in range(2)]
    assert [work.session.session_id for work in works if work is not None] == [older, *({*sessions} - {older})]


def test_an_answer_that_nobody_waits_for_is_none(bench: Bench) -> None:
    bench.board.begun([7, 8])
    bench.board.made(7, Made(FACE, 1.0, 1.0))
    assert bench.board.asker(7) is None
    assert not has_work(bench)


def test_a_thread_that_waits_gets_work_as_soon_as_a_face_is_made(bench: Bench) -> None:
    session = bench.add()
    bench.asked(session)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(bench.board.take)
        bench.made()
        assert isinstance(taking.result(30), Finish)


# Tiers


def test_a_session_that_enters_the_last_tier_withdraws_its_request(bench: Bench) -> None:
    session = bench.add()
    work = bench.asked(session)
    session.target_tier = LAST
    assert bench.board.enter(session, LAST)
    assert work.is_over
    assert session.turn is None
    assert bench.device.withdrawn == [session.serial]
    assert bench.board.tiers() == [LAST]
    bench.clock.now_s += 0.04
    bench.offer(session)
    assert bench.begin().cue.tier == LAST


def test_a_session_that_enters_the_last_tier_keeps_a_face_that_is_being_made(bench: Bench) -> None:
    session = bench.add()
    work = bench.asked(session)
    bench.board.begun([bench.device.asks[0].ticket])
    session.target_tier = LAST
    assert bench.board.enter(session, LAST)
    assert not work.is_over
    assert bench.device.withdrawn == []
    bench.made()
    assert isinstance(bench.board.take(), Finish)


def test_a_tier_that_is_not_the_target_any_more_is_not_entered(bench: Bench) -> None:
    session = bench.add()
    assert not bench.board.enter(session, LAST)
    session.target_tier = LAST
    bench.board.remove("s")
    assert not bench.board.enter(session, LAST)
    assert session.tier == 0


def test_a_session_whose_avatar_is_not_prepared_waits(bench: Bench) -> None:
    session = bench.add()
    del session.avatar.prepared[0]
    bench.clock.now_s = 5.0
    bench.offer(session)
    assert not has_work(bench)


# The device is lost


def test_a_lost_device_leaves_sessions_that_go_on_without_it(bench: Bench) -> None:
    asked, drawing, idle = bench.add("asked"), bench.add("drawing"), bench.add("idle")
    works = [bench.asked(asked), bench.asked(drawing)]
    bench.board.begun([bench.device.asks[1].ticket])
    avatars = [session.avatar for session in (asked, drawing, idle)]
    assert bench.board.forget_device(avatars) == ["drawing"], "its face was under way"
    assert all(work.is_over and work.face is None for work in works)
    assert all(list(avatar.prepared) == [LAST] for avatar in avatars)
    for ask in bench.device.asks:
        bench.board.made(ask.ticket, Made(FACE, 1.0, 1.0))
    begun = set()
    for session in (asked, drawing, idle):
        session.target_tier = LAST
        assert bench.board.enter(session, LAST)
    bench.clock.now_s += 0.04
    for session in (asked, drawing, idle):
        bench.offer(session)
    for _ in range(3):
        begin = bench.begin()
        assert begin.cue.tier == LAST
        begun.add(begin.session.session_id)
    assert begun == {"asked", "drawing", "idle"}


def test_a_face_that_was_made_before_the_device_was_lost_is_shown(bench: Bench) -> None:
    session = bench.add()
    work = bench.asked(session)
    made = bench.made()
    assert bench.board.forget_device([session.avatar]) == []
    finish = bench.board.take()
    assert isinstance(finish, Finish)
    finish.turn.finish()
    assert work.face is made


def test_a_turn_that_began_before_the_device_was_lost_asks_for_nothing(bench: Bench) -> None:
    session = bench.add()
    bench.clock.now_s = 0.04
    bench.offer(session)
    begin = bench.begin()
    work = Work(session)
    wanted = run(work.coroutine)
    assert wanted is not None
    bench.board.forget_device([session.avatar])
    bench.board.asked(begin, work.coroutine, wanted)
    assert work.is_over
    assert (bench.device.asks, session.turn, session.is_beginning) == ([], None, False)


def test_another_device_is_never_asked_for_what_the_lost_one_had_prepared(bench: Bench) -> None:
    """It numbers avatars anew: it could draw the face of another person."""
    session = bench.add()
    bench.clock.now_s = 0.04
    bench.offer(session)
    begin = bench.begin()
    work = Work(session)
    wanted = run(work.coroutine)
    assert wanted is not None
    bench.board.forget_device([session.avatar])
    bench.board.device = another = NotedDevice()
    session.avatar.prepared[0] = WarpGenerator().prepare(session.avatar.face)
    bench.board.asked(begin, work.coroutine, wanted)
    assert another.asks == []
    assert work.is_over
    bench.clock.now_s += 0.04
    bench.offer(session)
    bench.ask(bench.begin())
    (ask,) = another.asks
    assert ask.prepared is session.avatar.prepared[0]


# Sessions come and go


def test_a_session_that_is_gone_drops_its_turn_and_gets_no_more(bench: Bench) -> None:
    session, other = bench.add("gone"), bench.add("other")
    work = bench.asked(session)
    assert bench.board.remove("gone") is session
    assert bench.board.remove("gone") is None
    assert session.gone
    assert work.is_over
    assert bench.device.forgotten == [session.serial]
    ticket = bench.device.asks[0].ticket
    bench.board.begun([ticket])
    bench.board.made(ticket, Made(FACE, 1.0, 1.0))
    assert bench.board.sessions() == [other]
    assert bench.board.find("gone") is None
    bench.offer(session)
    assert bench.asked(other).face is None
    assert not has_work(bench)


def test_a_session_that_goes_while_its_turn_begins_asks_for_nothing(bench: Bench) -> None:
    session = bench.add()
    bench.clock.now_s = 0.04
    bench.offer(session)
    begin = bench.begin()
    bench.board.remove("s")
    work = bench.ask(begin)
    assert work.is_over
    assert bench.device.asks == []
    assert session.turn is None


@pytest.mark.parametrize("leaves", [True, False])
def test_a_session_that_goes_while_its_frame_is_made_publishes_nothing(bench: Bench, leaves: bool) -> None:
    session, published = bench.add(), list[EncodedFrame]()
    tiers = Tiers(("network", "warp"), ("network", "warp"), WarpGenerator())
    pipeline = Pipeline(tiers, bench.clock, GeneratorMetrics(), lambda _, frame: published.append(frame))
    bench.clock.now_s = 0.04
    bench.offer(session)
    begin = bench.begin()
    work = pipeline.frame(session, begin.cue)
    wanted = run(work)
    assert wanted is not None
    bench.board.asked(begin, work, wanted)
    bench.made()
    finish = bench.board.take()
    assert isinstance(finish, Finish)
    if leaves:
        bench.board.remove("s")
    finish.turn.finish()
    assert len(published) == (0 if leaves else 1)


def test_a_closed_board_takes_no_session_and_gives_no_work(bench: Bench) -> None:
    session = bench.add("here")
    work = bench.asked(session)
    bench.clock.now_s += 1.0
    bench.offer(session)
    with ThreadPoolExecutor(2) as pool:
        bench.begin()
        waiting = [pool.submit(bench.board.take) for _ in range(2)]
        assert bench.board.clear() == [session]
        assert [one.result(30) for one in waiting] == [None, None]
    assert session.gone
    assert work.is_over
    late = GeneratorSession(
        session.record, session.avatar, 0, session.compositor, session.h264, KeyframePolicy(), bench.clock.now_s
    )
    assert not bench.board.add(late)
    assert bench.board.take() is None
    assert bench.board.sessions() == []


def test_threads_that_add_remove_and_take_at_once_lose_no_session(bench: Bench) -> None:
    """Four threads take turns while sessions come and go; each session that is left can still be drawn."""
    bench.clock.now_s = 1.0
    sessions = [bench.add(str(number)) for number in range(8)]
    stopped, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while (taken := bench.board.take()) is not None:
                if isinstance(taken, Begin):
                    bench.ask(taken)
                else:
                    taken.turn.finish()
                    bench.board.framed(taken.session)
        except BaseException as error:  # noqa: BLE001 - the test's own thread fails with it
            errors.append(error)

    def answer() -> None:
        done = 0
        while not stopped.is_set():
            for ask in bench.device.asks[done:]:
                done += 1
                bench.board.begun([ask.ticket])
                bench.board.made(ask.ticket, Made(FACE, 1.0, 1.0))

    threads = [threading.Thread(target=work) for _ in range(4)] + [threading.Thread(target=answer)]
    for thread in threads:
        thread.start()
    for number in range(40):
        bench.clock.now_s += 0.04
        for session in sessions:
            bench.offer(session, number)
        if number % 10 == 5:
            bench.board.remove(sessions.pop().session_id)
    asked = len(bench.device.asks)
    for _ in range(3000):
        bench.clock.now_s += 0.04
        for session in sessions:
            bench.offer(session)
        if {ask.session for ask in bench.device.asks[asked:]} >= {session.serial for session in sessions}:
            break
    else:
        raise AssertionError("a session was not drawn any more")
    bench.board.clear()
    stopped.set()
    for thread in threads:
        thread.join(30)
    assert not errors
