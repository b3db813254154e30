"""Python SDK of Mien: REST client, uplinks of motion packets and voice, WHEP viewer, rooms.

async with MienClient("http://127.0.0.1:8080") as mien:
    session = await mien.create_session("mien")
    async with Uplink(session.uplink_url, session.token) as uplink:
        uplink.push(packet)
"""

from mien_client.api import Avatar, Invitation, MienClient, MienError, Participant, Session, Unreachable
from mien_client.publication import Publication
from mien_client.room import Room
from mien_client.room_state import RoomClosed, RoomEvent
from mien_client.room_view import RoomView
from mien_client.sound import FileSound, LoopedVoice
from mien_client.speaking import packets
from mien_client.uplink import Uplink
from mien_client.viewer import Viewer
from mien_client.voice_packets import VoicePacket
from mien_client.whep import ReceivedFrame, ReceivedSound, WhepError
from mien_client.whip import WhipUplink
from mien_shared.wire.track import MotionTrack

__all__ = [
    "Avatar",
    "FileSound",
    "Invitation",
    "LoopedVoice",
    "MienClient",
    "MienError",
    "MotionTrack",
    "Participant",
    "Publication",
    "ReceivedFrame",
    "ReceivedSound",
    "Room",
    "RoomClosed",
    "RoomEvent",
    "RoomView",
    "Session",
    "Unreachable",
    "Uplink",
    "Viewer",
    "VoicePacket",
    "WhepError",
    "WhipUplink",
    "packets",
]
