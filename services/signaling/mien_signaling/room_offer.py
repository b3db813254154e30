"""Reads a participant's WHEP offer to a room: video and audio sections that receive, which become slots. Pure.

The i-th video section and the i-th audio section are slot i. A slot without an audio section has no voice. All are in
one BUNDLE group, because one connection carries everything. What is more than `max_slots`, and every other section, is
refused in its place, as in an offer to a session (offer.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_signaling.h264_format import H264Format
from mien_signaling.offer import Voice, extensions_of, format_of, reduced_video, voice_of
from mien_signaling.offer_parts import (
    Connection,
    Description,
    UnacceptableOffer,
    connection_of,
    owns,
    read_description,
    reduced_offer,
    reduced_opus,
)
from mien_signaling.sdp import IceCandidate, Section
from mien_signaling.settings import MAX_SLOTS

#: Sections of an offer: those of the most slots that a deployment can allow, and two others. More slots than this
#: deployment allows are refused in their place.
MAX_ROOM_SECTIONS = 2 * MAX_SLOTS + 2


@dataclass(frozen=True, slots=True)
class OfferedSlot:
    """One slot. index, mid: of its video section. extensions: as "id uri". voice: None without an audio section."""

    index: int
    mid: str
    format: H264Format
    extensions: tuple[str, ...]
    voice: Voice | None

    @property
    def mids(self) -> tuple[str, str | None]:
        """Of the video and the audio section."""
        return self.mid, None if self.voice is None else self.voice.mid


@dataclass(frozen=True, slots=True)
class RoomOffer:
    """A checked offer. The other fields are those of `Offer`."""

    sections: tuple[Section, ...]
    slots: tuple[OfferedSlot, ...]
    carrier: int | None
    bundle: tuple[int, ...]
    ufrags: frozenset[str]
    reduced: str

    @property
    def served(self) -> frozenset[int]:
        """Indexes of the sections that we do not refuse."""
        voices = {slot.voice.index for slot in self.slots if slot.voice is not None}
        carrier = set() if self.carrier is None else {self.carrier}
        return frozenset({slot.index for slot in self.slots} | voices | carrier)

    def owns(self, candidate: IceCandidate) -> bool:
        """Whether a trickled candidate is for our connection."""
        return owns(candidate, self.sections, {*self.served, *self.bundle})


def parse_room_offer(body: str, max_slots: int) -> RoomOffer:
    """Check an offer to a room; raises UnreadableOffer or UnacceptableOffer."""
    offered = read_description(body, MAX_ROOM_SECTIONS)
    videos = [
        index for index, section in enumerate(offered.sections) if section.kind == "video" and offered.receives(section)
    ]
    if not videos:
        raise UnacceptableOffer("the offer has no video section that receives (recvonly or sendrecv)")
    bundle = offered.group_of(videos[0])
    if outside := [index for index in videos[1:] if index not in bundle]:
        raise UnacceptableOffer(f"video section {outside[0]} of the offer is not in the BUNDLE group of the first one")
    voices = [voice for index in sorted(bundle) if (voice := voice_of(offered, index)) is not None]
    if len(voices) > len(videos):
        raise UnacceptableOffer("the offer has more audio sections than video sections: a slot has one of each")
    pairs = zip(videos[:max_slots], [*voices, *[None] * len(videos)], strict=False)
    slots = tuple(_slot(offered.sections[index], index, voice) for index, voice in pairs)
    connection = connection_of(offered, slots[0].index, "video")
    served = {slot.index for slot in slots} | {slot.voice.index for slot in slots if slot.voice is not None}
    return RoomOffer(
        sections=offered.sections,
        slots=slots,
        carrier=None if connection.carrier in served else connection.carrier,
        bundle=connection.bundle,
        ufrags=offered.ufrags,
        reduced=_reduced(offered, slots, connection),
    )


def _slot(video: Section, index: int, voice: Voice | None) -> OfferedSlot:
    if video.mid is None:
        raise UnacceptableOffer(f"video section {index} of the offer has no mid")
    if video.port != 0 and "rtcp-mux" not in video.attributes:
        raise UnacceptableOffer("the offer's video section has no rtcp-mux")
    return OfferedSlot(index, video.mid, format_of(video), extensions_of(video), voice)


def _reduced(offered: Description, slots: tuple[OfferedSlot, ...], connection: Connection) -> str:
    """The offer that aiortc gets: for each slot a section of video and one of Opus, if it has a voice."""
    mids, sections = [], []
    for slot in slots:
        mids.append(slot.mid)
        sections.append(reduced_video(slot.mid, slot.format, slot.extensions, connection))
        if slot.voice is not None:
            mids.append(slot.voice.mid)
            sections.append(reduced_opus(slot.voice.mid, "recvonly", connection))
    return reduced_offer(offered, mids, sections)
