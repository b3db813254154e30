"""No service logs a secret, a token, SDP or part of a picture, even at level DEBUG."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

import mien_gateway
from mien_client.api import MienClient, MienError, Session, authorization
from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK
from mien_client.uplink import Uplink, UplinkClosed
from mien_shared.wire.track import MotionTrack

pytestmark = pytest.mark.e2e

PICTURE = Path(mien_gateway.__file__).parent / "bundled/mien.png"
API_KEY, WRONG_KEY, TOKEN_SECRET, TURN_SECRET = (secrets.token_urlsafe(32) for _ in range(4))
CONSENT_NAME = "Somebody Whom Logs Do Not Name"
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
#: Length of the pieces of a picture that are searched in the logs, as Python shows bytes and in hexadecimal.
SAMPLE_BYTES = 12


async def test_secrets_and_faces_stay_out_of_logs() -> None:
    options = StackOptions(
        gateway_port=0,
        signaling_port=0,
        generator_env={
            "MIEN_LOG_LEVEL": "DEBUG",
            "MIEN_DEMO_OPEN": "false",
            "MIEN_API_KEYS": API_KEY,
            "MIEN_TOKEN_SECRET": TOKEN_SECRET,
            "MIEN_TURN_SECRET": TURN_SECRET,
            "MIEN_TURN_URLS": '["turn:127.0.0.1:3478"]',
        },
    )
    async with Stack(options) as stack:
        unwanted = await use_everything(stack)
        logs = {path.name: path.read_text() for path in stack.folder.glob("*.log")}
    assert {"gateway.log", "generator.log", "signaling.log"} <= set(logs)
    assert all("service starting" in log and '"level": "DEBUG"' in log for log in logs.values())
    found = [(name, what) for name, log in logs.items() for what, text in unwanted.items() if text in log]
    assert not found, [
        line[:300] for log in logs.values() for line in log.splitlines() for _, w in found if unwanted[w] in line
    ]
    assert not [line for log in logs.values() for line in log.splitlines() if re.search(r"a=(ice-|fingerprint)", line)]


async def use_everything(stack: Stack) -> dict[str, str]:
    """Make a whole call with many kinds of refusals. Returns the texts that no log may contain, by name."""
    whole = PICTURE.read_bytes()
    unwanted = {"API key": API_KEY, "wrong key": WRONG_KEY, "token secret": TOKEN_SECRET, "TURN secret": TURN_SECRET}
    unwanted |= samples("uploaded picture", whole) | {"name of the person in it": CONSENT_NAME}
    async with MienClient(stack.url, WRONG_KEY) as stranger:
        with pytest.raises(MienError, match="api-key-invalid"):
            await stranger.create_session("mien")
    async with MienClient(stack.url, API_KEY) as mien:
        avatar = await mien.upload_avatar(PICTURE, "granted", CONSENT_NAME)
        session = await mien.create_session(avatar.avatar_id)
        unwanted |= {"session": session.session_id, "token": session.token, "watch token": session.watch_token}
        unwanted |= {f"TURN credential {i}": str(one.credential) for i, one in enumerate(session.ice_servers)}
        with pytest.raises(UplinkClosed):
            async with Uplink(session.uplink_url, session.watch_token):
                pass
        async with Uplink(session.uplink_url, session.token) as uplink:
            for packet in MotionTrack.load(DEMO_TRACK).packets[:30]:
                uplink.push(packet)
                await asyncio.sleep(1 / 30)
            unwanted |= await watch(session, mien)
        await mien.session(session.session_id, session.watch_token)
        await mien.end_session(session.session_id, session.token)
    return unwanted


async def watch(session: Session, mien: MienClient) -> dict[str, str]:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = str(peer.localDescription.sdp)
    headers = authorization(session.watch_token) | {"Content-Type": "application/sdp"}
    async with httpx.AsyncClient(trust_env=False) as http:
        for damaged in (offer.replace("H264/", "H265/"), offer.replace("a=ice-ufrag", "a=ice-frag"), "v=0\r\nhello"):
            assert (await http.post(session.whep_url, content=damaged, headers=headers)).is_client_error
        async with asyncio.timeout(20):
            while (answer := await http.post(session.whep_url, content=offer, headers=headers)).status_code == 409:
                await asyncio.sleep(0.1)
        assert answer.status_code == 201
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        async with asyncio.timeout(20):
            while peer.connectionState != "connected":
                await asyncio.sleep(0.05)
        resource = httpx.URL(session.whep_url).join(answer.headers["location"])
        ufrag = re.search(r"a=ice-ufrag:(\S+)", offer)
        assert ufrag is not None
        candidate = f"a=ice-ufrag:{ufrag[1]}\r\na=candidate:1 1 udp 1 192.0.2.77 61764 typ host\r\n"
        for body in (candidate, "a=candidate:nonsense"):
            await http.patch(resource, content=body, headers=authorization(session.watch_token) | FRAGMENT)
        viewer_id = resource.path.rpartition("/")[2]
        async with asyncio.timeout(20):
            while viewer_id not in [viewer.viewer_id for viewer in await mien.viewers(session.session_id)]:
                await asyncio.sleep(0.05)
            await mien.end_viewer(session.session_id, viewer_id)
            headers = authorization(session.watch_token) | FRAGMENT
            while (await http.patch(resource, content="", headers=headers)).status_code != 410:
                await asyncio.sleep(0.05)
        await http.delete(resource, headers=authorization(session.watch_token))
    await peer.close()
    secrets_of = re.compile(r"a=(?:ice-pwd|fingerprint):(.+?)\r?$", re.MULTILINE)
    told = {f"SDP {i}": text for i, text in enumerate(secrets_of.findall(offer) + secrets_of.findall(answer.text))}
    assert len(told) >= 4
    return told | {"viewer": answer.headers["location"].rpartition("/")[2], "candidate": "192.0.2.77"}


def samples(name: str, data: bytes) -> dict[str, str]:
    """A few pieces of a picture, in the forms in which they could appear in a log."""
    found = {}
    for at in range(200, len(data) - SAMPLE_BYTES, len(data) // 50):
        piece = data[at : at + SAMPLE_BYTES]
        found[f"{name} at {at}, as bytes"] = repr(piece)[2:-1]
        found[f"{name} at {at}, in hexadecimal"] = piece.hex()
    return found
