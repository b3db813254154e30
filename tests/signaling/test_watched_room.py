"""What a room tells of its speakers, and whom it keeps when Redis has lost its records."""

from __future__ import annotations

from redis.asyncio import Redis

from mien_shared.bus.live_rooms import ActiveSpeaker
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState
from mien_signaling.broadcasts import Broadcasts
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.settings import SignalingSettings
from mien_signaling.voice_timeline import TimedVoice
from mien_signaling.watched_room import LOST_S, WatchedRoom

_SETTINGS = SignalingSettings(token_secret="a secret of thirty-two bytes or more")


class StillClock:
    """Stands still until a test sets it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


def room_at(clock: StillClock) -> WatchedRoom:
    """A room that asks Redis nothing."""
    return WatchedRoom("r", Broadcasts(Redis(), _SETTINGS, clock, SignalingMetrics()), clock)


def person(
    name: str, session_id: str | None = "s", state: ParticipantState = ParticipantState.ACTIVE
) -> ParticipantRecord:
    return ParticipantRecord(
        participant_id=name,
        identity=name,
        name=name,
        grants=frozenset(),
        state=state,
        joined_at_ms=0,
        session_id=session_id,
    )


def voice(level: int | None, size: int = 60) -> TimedVoice:
    return TimedVoice(0, 0, False, level, None, bytes(size))


def names(speakers: tuple[ActiveSpeaker, ...]) -> list[str]:
    return [one.participant_id for one in speakers]


def test_a_change_of_order_waits_and_another_speaker_does_not() -> None:
    clock = StillClock()
    room = room_at(clock)
    room.hears("a", voice(30))
    room.hears("b", voice(40))
    first = room.speakers()
    assert names(first) == ["a", "b"] and room.has_news(first)
    room.tells(first)
    assert not room.has_news(first)
    room.hears("b", voice(10))
    swapped = room.speakers()
    assert names(swapped) == ["b", "a"] and not room.has_news(swapped)
    clock.now_s += 1.0
    assert room.has_news(swapped)
    room.tells(swapped)
    room.hears("c", voice(20))
    assert room.has_news(room.speakers()), "at once"


def test_a_voice_without_a_level_speaks_unless_it_is_silence() -> None:
    room = room_at(StillClock())
    assert room.hears("a", voice(None)), "a sender that tells no level"
    assert not room.hears("b", voice(None, size=3)), "what Opus sends in silence"
    assert not room.hears("c", voice(127))


def test_only_who_is_there_and_has_an_avatar_can_be_shown() -> None:
    room = room_at(StillClock())
    room.learn([person("a"), person("b", None), person("c", state=ParticipantState.INVITED)])
    assert room.missing([]) == ["a"]


def test_who_is_lost_stays_for_a_while() -> None:
    clock = StillClock()
    room = room_at(clock)
    room.learn([person("a"), person("b")])
    room.learn([person("b")], lost=["a"])
    assert room.missing([]) == ["a", "b"]
    clock.now_s += LOST_S / 2
    room.learn([], lost=["a", "b"])
    clock.now_s += LOST_S / 2 + 1
    room.forget_lost()
    assert room.missing([]) == ["b"], "a was lost first"
    room.learn([person("a"), person("b")])
    clock.now_s += 2 * LOST_S
    room.forget_lost()
    assert room.missing([]) == ["a", "b"], "written again"
