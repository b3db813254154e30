"""What there is to do: the sessions of an engine, the stage of each one's turn, and the most urgent work.

One lock guards it. The event loop adds motion, the device answers, and the pool's threads take work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from mien_generator.device.contract import Ask, Device, Made
from mien_generator.engine.scheduler import gather
from mien_generator.engine.session import Arrival, Cue, GeneratorSession, SessionAvatar
from mien_generator.engine.turn import FaceWanted, FrameWork, Stage, Turn
from mien_shared.clock import Clock

#: An idle thread looks for work at least this often.
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a session's turn. deadline_s: of the frame. replaces: an older turn was dropped for it."""

    session: GeneratorSession
    cue: Cue
    deadline_s: float
    replaces: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Make the frame of a turn whose face the device has made."""

    session: GeneratorSession
    turn: Turn


class Board:
    """The sessions and their turns. Every method may be called on any thread."""

    def __init__(self, last_tier: int, fps: int, clock: Clock) -> None:
        self._last_tier = last_tier
        self._fps = fps
        self._clock = clock
        #: What makes the faces of all tiers but the last. None: there is only the last tier.
        self.device: Device | None = None
        self._work = threading.Condition()
        self._sessions: dict[str, GeneratorSession] = {}
        self._tickets = count(1)
        self._asked: dict[int, GeneratorSession] = {}
        self._closed = False

    # Sessions

    def sessions(self) -> list[GeneratorSession]:
        """All sessions, the oldest first."""
        with self._work:
            return list(self._sessions.values())

    def find(self, session_id: str) -> GeneratorSession | None:
        return self._sessions.get(session_id)

    def add(self, session: GeneratorSession) -> bool:
        """Add a session. False if the board is closed."""
        with self._work:
            if not self._closed:
                self._sessions[session.session_id] = session
                self._work.notify()
            return not self._closed

    def remove(self, session_id: str) -> GeneratorSession | None:
        """Remove a session and drop its turn. None if it is unknown."""
        with self._work:
            session = self._sessions.pop(session_id, None)
            if session is not None:
                self._retire(session)
            return session

    def clear(self) -> list[GeneratorSession]:
        """Close the board: no more work. Returns the sessions that it had."""
        with self._work:
            self._closed = True
            gone = list(self._sessions.values())
            for session in gone:
                self._retire(session)
            self._sessions.clear()
            self._work.notify_all()
            return gone

    def _retire(self, session: GeneratorSession) -> None:
        session.gone = True
        if session.turn is not None:
            self._drop(session.turn)
            session.turn = None
        if self.device is not None:
            self.device.forget(session.serial)

    def _drop(self, turn: Turn) -> None:
        self._asked.pop(turn.ticket, None)
        turn.work.close()

    def offer(self, session: GeneratorSession, arrival: Arrival) -> int:
        """Pass a session its newest motion. Returns the number of undrawn packets that it replaced."""
        with self._work:
            replaced = session.offer(arrival)
            self._work.notify()
            return replaced

    def enter(self, session: GeneratorSession, tier: int) -> bool:
        """Draw the session on this tier from now on, if this is still its target. Returns whether it is."""
        with self._work:
            is_wanted = not session.gone and session.target_tier == tier
            if is_wanted:
                session.tier = tier
                turn = session.turn
                if tier == self._last_tier and turn is not None and turn.stage is Stage.ASKED:
                    self._drop(turn)
                    session.turn = None
                    if self.device is not None:
                        self.device.withdraw(session.serial)
                self._work.notify()
            return is_wanted

    def tiers(self) -> list[int]:
        """The tier of every session."""
        with self._work:
            return [session.tier for session in self._sessions.values()]

    # Work of the pool's threads

    def take(self) -> Begin | Finish | None:
        """Wait for work and take the most urgent. None: the board is closed.

        Turns that need the device come first: they take a moment, and the device does its work meanwhile. Then the
        earliest deadline decides.
        """
        with self._work:
            while not self._closed:
                now_s = self._clock.monotonic_s()
                for_device = gather(self._may_begin(on_device=True), now_s, self._fps, self._one)
                if for_device.due:
                    return self._begin(*for_device.due[0], now_s)
                alone = gather(self._may_begin(on_device=False), now_s, self._fps, self._one)
                drawn = min(self._drawn(), key=lambda one: one.turn.deadline_s, default=None)
                if drawn is not None and drawn.turn.deadline_s <= alone.deadline_s:
                    return self._frame(drawn)
                if alone.due:
                    return self._begin(*alone.due[0], now_s)
                due_s = min(for_device.next_due_s, alone.next_due_s)
                self._work.wait(min(_LONGEST_WAIT_S, max(0.0, due_s - now_s)))
            return None

    @property
    def _one(self) -> dict[int, int]:
        return dict.fromkeys(range(self._last_tier + 1), 1)

    def _may_begin(self, on_device: bool) -> Iterator[GeneratorSession]:
        for session in self._sessions.values():
            if (session.tier < self._last_tier) == on_device and session.may_begin(on_device):
                yield session

    def _drawn(self) -> Iterator[_Drawn]:
        for session in self._sessions.values():
            if session.turn is not None and session.turn.stage is Stage.DRAWN and session.framing is None:
                yield _Drawn(session, session.turn)

    def _begin(self, session: GeneratorSession, due_s: float, now_s: float) -> Begin:
        deadline_s, replaced = session.timing.deadline_s(self._fps), session.turn
        if replaced is not None:  # it only waits for the device, and there is newer motion
            deadline_s = replaced.deadline_s
            self._drop(replaced)
            session.turn = None
        session.is_beginning = True
        self._work.notify()  # let another waiting thread look for the next work
        return Begin(session, session.begin(now_s, due_s, self._fps), deadline_s, replaced is not None)

    def _frame(self, drawn: _Drawn) -> Finish:
        session, turn = drawn.session, drawn.turn
        turn.stage = Stage.FRAMING
        session.turn, session.framing = None, turn
        self._work.notify()  # the session's next face may be made while this one is encoded
        return Finish(session, turn)

    def asked(self, begin: Begin, work: FrameWork, wanted: FaceWanted) -> None:
        """The turn needs a face of the device: ask for it."""
        session = begin.session
        with self._work:
            session.is_beginning = False
            # The device may be lost since the turn began. Another one knows nothing of what the lost one has prepared.
            is_stale = session.avatar.prepared.get(wanted.tier) is not wanted.prepared
            if session.gone or self.device is None or is_stale:
                work.close()
                return
            turn = session.turn = Turn(work, begin.deadline_s, Stage.ASKED, next(self._tickets))
            self._asked[turn.ticket] = session
            # With the lock held, so that no answer comes before the turn is here.
            self.device.ask(
                Ask(session.serial, turn.ticket, wanted.tier, wanted.prepared, wanted.driving, begin.deadline_s)
            )

    def began(self, session: GeneratorSession) -> None:
        """A thread has run a turn that needed no face of the device, or has failed to."""
        with self._work:
            session.is_beginning = False
            self._work.notify()

    def framed(self, session: GeneratorSession) -> None:
        """A thread has made the frame of a drawn face, or has failed to."""
        with self._work:
            session.framing = None
            self._work.notify()

    # Answers of the device

    def begun(self, tickets: Iterable[int]) -> None:
        with self._work:
            for ticket in tickets:
                if (turn := self._turn(ticket)) is not None:
                    turn.stage = Stage.DRAWING

    def made(self, ticket: int, made: Made) -> None:
        with self._work:
            if (turn := self._turn(ticket)) is not None:
                del self._asked[ticket]
                turn.stage, turn.made = Stage.DRAWN, made
                self._work.notify()

    def asker(self, ticket: int) -> GeneratorSession | None:
        """The session that waits for this request's face. None if it has gone, or asked again."""
        with self._work:
            return self._asked.get(ticket)

    def forget_device(self, avatars: Iterable[SessionAvatar]) -> list[str]:
        """The device is gone, with all requests and with what it prepared of these avatars.

        A session that waits for a face begins its turn again, once its avatar is prepared for its tier. Returns the
        sessions whose faces were under way: one of them may be the reason.
        """
        with self._work:
            self.device = None
            under_way = [
                session.session_id
                for session in self._asked.values()
                if session.turn is not None and session.turn.stage is Stage.DRAWING
            ]
            for session in self._asked.values():
                if session.turn is not None:
                    session.turn.work.close()
                    session.turn = None
            self._asked.clear()
            for avatar in avatars:
                for tier in [tier for tier in avatar.prepared if tier < self._last_tier]:
                    del avatar.prepared[tier]
            self._work.notify()
            return under_way

    def _turn(self, ticket: int) -> Turn | None:
        session = self._asked.get(ticket)
        return session.turn if session is not None else None


@dataclass(frozen=True, slots=True)
class _Drawn:
    session: GeneratorSession
    turn: Turn
