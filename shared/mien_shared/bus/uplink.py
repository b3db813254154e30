"""One uplink's motion, from a message to the generator's inbox: the same for a WebSocket and a data channel."""

from __future__ import annotations

from dataclasses import dataclass

from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.messages import InboundMotion
from mien_shared.wire.packet_filter import PacketFilter, PacketVerdict


@dataclass(slots=True)
class MotionUplink:
    """The judge of one connection's messages. owner: the generator that holds the session, None if none does."""

    session_id: str
    owner: str | None
    filter: PacketFilter

    def take(self, data: bytes | None, now_s: float, unix_s: float, forwarder: MotionForwarder) -> PacketVerdict:
        """Judge one message (None: it was text) and forward it if it is accepted. Never waits.

        now_s: monotonic seconds; unix_s: the arrival that the generator's measurements begin with.
        """
        verdict = self.filter.text(now_s) if data is None else self.filter.packet(data, now_s)
        if verdict is not PacketVerdict.ACCEPTED or data is None:
            return verdict
        if self.owner is None:
            return PacketVerdict.NO_OWNER
        assert self.filter.header is not None  # the filter has accepted a packet
        motion = InboundMotion(self.session_id, data, int(unix_s * 1e6))
        forwarder.push(self.owner, motion, self.filter.header.may_be_dropped)
        return verdict
