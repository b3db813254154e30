"""Offers to rooms: what becomes a slot, what is refused in its place, and which offers cannot be served."""

from __future__ import annotations

import pytest
from signaling.offers import AUDIO, DATA, VIDEO, changed, description

from mien_signaling.answer import room_answer_to
from mien_signaling.offer_parts import UnacceptableOffer
from mien_signaling.room_offer import RoomOffer, parse_room_offer
from mien_signaling.sdp import candidates_of, sections_of

RECEIVED = changed(AUDIO, direction="recvonly")


def videos(count: int) -> list[str]:
    return [changed(VIDEO, mid=f"v{number}") for number in range(count)]


def voices(count: int) -> list[str]:
    return [changed(RECEIVED, mid=f"a{number}") for number in range(count)]


def bundled(*sections: str) -> str:
    mids = [line.removeprefix("a=mid:") for one in sections for line in one.splitlines() if line.startswith("a=mid:")]
    return description(*sections, group=" ".join(mids))


def parsed(*sections: str, max_slots: int = 4) -> RoomOffer:
    return parse_room_offer(bundled(*sections), max_slots)


def pairs(offer: RoomOffer) -> list[tuple[str, str | None]]:
    return [(slot.mid, None if slot.voice is None else slot.voice.mid) for slot in offer.slots]


def test_the_nth_video_and_the_nth_audio_section_are_a_slot_in_any_order() -> None:
    v, a = videos(3), voices(2)
    for order in ([*v, *a], [*a, *v], [v[0], a[0], v[1], a[1], v[2]], [a[0], v[0], v[1], a[1], v[2]]):
        offer = parsed(*order)
        assert pairs(offer) == [("v0", "a0"), ("v1", "a1"), ("v2", None)]
        reduced = sections_of(offer.reduced)[1:]
        assert [section.mid for section in reduced] == ["v0", "a0", "v1", "a1", "v2"]
        assert {section.kind for section in reduced} == {"video", "audio"}


def test_slots_beyond_the_limit_and_other_sections_are_refused_in_their_place() -> None:
    offer = parsed(*videos(3), *voices(3), DATA, max_slots=2)
    assert pairs(offer) == [("v0", "a0"), ("v1", "a1")]
    accepted = offer.reduced.replace("a=recvonly", "a=sendonly").replace(" 9 ", " 5000 ")
    session, *sections = sections_of(room_answer_to(offer, accepted))
    assert [section.mid for section in sections] == ["v0", "v1", "v2", "a0", "a1", "a2", "d"]
    assert [section.port for section in sections] == [5000, 5000, 0, 5000, 5000, 0, 0]
    assert session.first("group") == "BUNDLE v0 v1 a0 a1"
    assert ["sendonly" in section.attributes for section in sections] == [True, True, False, True, True, False, False]


def test_a_second_data_channel_is_refused_in_its_place() -> None:
    offer = parsed(*videos(1), DATA, changed(DATA, mid="e"))
    sections = sections_of(room_answer_to(offer, offer.reduced))[1:]
    assert [section.port != 0 for section in sections] == [True, False, False]


def test_a_section_that_sends_is_no_slot() -> None:
    sending = changed(VIDEO, mid="s", direction="sendonly")
    assert pairs(parsed(sending, *videos(1), changed(AUDIO, mid="t", direction="sendonly"))) == [("v0", None)]


@pytest.mark.parametrize(
    ("sections", "group", "words"),
    [
        ([*videos(26), *voices(25)], None, "more than 50 media sections"),
        ([*voices(2)], None, "no video section that receives"),
        ([changed(VIDEO, direction="sendonly")], None, "no video section that receives"),
        ([*videos(1), *voices(2)], None, "more audio sections than video sections"),
        ([*videos(2)], "v0", "video section 1 of the offer is not in the BUNDLE group"),
        ([*videos(2)], "", "video section 1 of the offer is not in the BUNDLE group"),
        ([VIDEO.replace("a=mid:v\n", "")], "", "has no mid"),
        ([videos(1)[0].replace("a=rtcp-mux\n", "")], None, "rtcp-mux"),
        ([videos(1)[0].replace("H264/90000", "H265/90000")], None, "no H264 video codec"),
    ],
)
def test_what_cannot_be_served_is_named(sections: list[str], group: str | None, words: str) -> None:
    offer = bundled(*sections) if group is None else description(*sections, group=group or None)
    with pytest.raises(UnacceptableOffer, match=words):
        parse_room_offer(offer, 4)


def test_one_slot_without_a_group_and_its_candidates() -> None:
    offer = parse_room_offer(description(VIDEO, RECEIVED), 4)
    assert pairs(offer) == [("v", None)], "the voice would need another connection"
    ours = candidates_of(sections_of(description(VIDEO))[1], 0)
    others = candidates_of(sections_of(description(RECEIVED))[1], 1)
    assert [offer.owns(one) for one in (ours[0], others[0])] == [True, False]
    assert parsed(*videos(1), *voices(1), DATA).owns(candidates_of(sections_of(bundled(*voices(1)))[1], 1)[0])
