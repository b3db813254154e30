"""The Python SDK speaks: motion and the sound of a file over WHIP, encoded on the speaker's side."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from integration.test_signaling_media import SESSION
from integration.test_signaling_voice import World, motion, world
from integration.voice_peers import SECRET, until

from mien_client.api import MienError, NotMien
from mien_client.sound import FRAME_SAMPLES, RATE_HZ, FileSound, read_sound
from mien_client.sources import SourceError
from mien_client.uplink import UplinkClosed
from mien_client.whip import WhipUplink
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.wire.motion import MotionPacket

pytestmark = pytest.mark.integration

__all__ = ["world"]  # a fixture


@pytest.fixture
def tone(tmp_path: Path) -> str:
    """A second of 440 Hz, mono, 16 kHz."""
    samples = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * 12_000
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return str(tmp_path / "tone.wav")


def uplink_of(world: World, voice: FileSound | None = None, token: str | None = None) -> WhipUplink:
    url = f"{str(world.client.base_url).rstrip('/')}/v1/whip/{SESSION.session_id}"
    return WhipUplink(url, token or TokenIssuer(SECRET).issue(SESSION.session_id, SPEAKER_GRANTS), voice)


def decoded(payloads: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    decoder = av.CodecContext.create("libopus", "r")
    frames = [frame for payload in payloads for frame in decoder.decode(av.Packet(payload))]
    return np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames]).astype(np.float64)


async def test_a_file_s_sound_is_heard(world: World, tone: str) -> None:
    listener = await world.listener()
    sound = FileSound(tone, loop=True)
    async with uplink_of(world, sound) as uplink:
        sound.begin()
        for number in range(10):
            uplink.push(MotionPacket.unpack(motion(number)))
            await asyncio.sleep(0.02)
        await listener.hear(60)
        await world.reaches('mien_whip_motion_packets_total{result="accepted"}', 10)
        assert (uplink.sent, uplink.sent_bytes) == (10, 1280)
    heard = listener.voice.packets[10:60]
    samples = decoded([packet.payload for packet in heard])
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert abs(np.argmax(spectrum) * RATE_HZ / len(samples) - 440) < 5
    levels = [packet.level[1] for packet in heard if packet.level]
    assert len(levels) == len(heard) and all(
        5 < level < 20 for level in levels
    )  # 12,000 of 32,768 in two channels: -14.7 dBov
    await world.reaches('mien_whip_uplinks_gone_total{reason="left"}', 1)


async def test_the_end_of_the_session_is_told(world: World) -> None:
    async with uplink_of(world) as uplink:
        await Registry(world.publisher.redis).end_session(SESSION.session_id)
        assert await uplink.ended() == "the session has ended"
        with pytest.raises(UplinkClosed, match="has ended"):
            uplink.push(MotionPacket.unpack(motion(1)))


async def test_refusals_have_names(world: World) -> None:
    with pytest.raises(MienError) as refused:
        await uplink_of(world, token="nonsense").__aenter__()
    assert (refused.value.status, refused.value.code) == (401, "token-invalid")
    other = WhipUplink(f"{str(world.client.base_url).rstrip('/')}/metrics", "token")
    with pytest.raises((MienError, NotMien)):
        await other.__aenter__()


def test_sound_comes_in_frames_of_20_ms_and_files_without_it_are_named(tone: str, tmp_path: Path) -> None:
    frames = list(read_sound(tone))
    assert {(frame.sample_rate, frame.samples, frame.format.name) for frame in frames} == {
        (RATE_HZ, FRAME_SAMPLES, "s16")
    }
    assert len(frames) in {49, 50}
    for name, text in (("absent.wav", "cannot be opened"), ("text.wav", "cannot be opened")):
        (tmp_path / "text.wav").write_text("this is no sound")
        with pytest.raises(SourceError, match=text):
            next(read_sound(str(tmp_path / name)))


async def test_without_a_loop_silence_follows(tone: str) -> None:
    sound = FileSound(tone)
    sound.begin()
    frames = [await sound.recv() for _ in range(60)]
    assert [frame.pts for frame in frames] == [FRAME_SAMPLES * number for number in range(60)]
    assert np.abs(frames[20].to_ndarray()).max() > 8_000
    assert not frames[-1].to_ndarray().any()
    sound.stop()
    await until(lambda: sound.readyState == "ended")
