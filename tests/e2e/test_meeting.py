"""Recorded speakers meet in a room, run as commands as a user runs them; each is a real receiver of the others."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from mien_client import LoopedVoice, MienClient, Room, packets
from mien_client.speaking import SPEAKERS
from mien_shared.wire.track import MotionTrack

pytestmark = [pytest.mark.e2e, pytest.mark.long]

MIEN = [sys.executable, "-m", "mien_client"]
#: warp, because these tests do not depend on how fast a busy machine draws.
DEMO = [*MIEN, "demo", "--port", "0", "--signaling-port", "0", "--backend", "warp", "--participants"]
PATIENCE_S = 60


@contextmanager
def command_of(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command that runs, and is killed if the test fails."""
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running_demo(participants: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo, and the address of its room's page."""
    with command_of([*DEMO, str(participants)]) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        page = re.search(r"http://\S+/room/demo", line)
        assert page, line
        yield process, page[0]


def in_the_room(page: str) -> list[str]:
    """The identities of those who are in the room, in the order of joining."""
    url = page.partition("/room/")[0]
    room_id = httpx.get(f"{url}/v1/rooms", trust_env=False).json()["rooms"][0]["room_id"]
    people = httpx.get(f"{url}/v1/rooms/{room_id}", trust_env=False).json()["participants"]
    return [one["identity"] for one in people]


def eventually(page: str, count: int) -> list[str]:
    deadline_s = time.monotonic() + PATIENCE_S
    while len(people := in_the_room(page)) != count:
        assert time.monotonic() < deadline_s, people
        time.sleep(0.1)
    return people


def join(*arguments: str) -> dict[str, object]:
    command = [*MIEN, "join", *arguments, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    report: dict[str, object] = json.loads(result.stdout)
    return report


def test_every_participant_sees_and_hears_every_other_one() -> None:
    command = [*DEMO, "3", "--seconds", "5", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    people = report["participants"]
    assert len(people) == 3
    assert {(link["from"], link["to"]) for link in report["links"]} == set(permutations(people, 2))
    for link in report["links"]:
        assert link["fps"], link
        assert 0 < link["latency_ms_p50"] <= link["latency_ms_p99"]
        assert link["voice_ms_p50"] > 0, "every packet is one that the sender has sent"
        assert link["av_offset_ms_p50"] is not None and link["av_offset_ms_p95"] >= 0
        assert 0 <= link["voice_loss"] < 1
    assert report["uplink_kbit_s"] > 0 and report["downlink_kbit_s"] > 0


def test_a_program_joins_records_and_leaves(tmp_path: Path) -> None:
    with running_demo(2) as (demo, page):
        first = in_the_room(page)
        assert len(first) == 2
        track = ["--track", str(SPEAKERS[2].track), "--name", "Guest"]
        with command_of([*MIEN, "join", page, *track]) as guest:
            guest_id = eventually(page, 3)[-1]
            report = join(page, "--seconds", "9")
            seen = {one["identity"]: one for one in report["participants"]}  # type: ignore[attr-defined]
            assert set(seen) == {*first, guest_id}
            assert all(one["fps"] and one["voice_ms_p50"] is not None for one in seen.values()), seen
            assert report["uplink_kbit_s"] is None
            faceless = join(page, "--audio", str(SPEAKERS[1].voice), "--seconds", "3")
            assert faceless["uplink_kbit_s"] > 5, "the voice alone moves a mouth"  # type: ignore[operator]
            assert len(eventually(page, 3)) == 3, "they have left"
            asyncio.run(the_page_s_example(page))
            out = tmp_path / "guest.mp4"
            record_the_guest(page, guest_id, out)
            guest.send_signal(signal.SIGINT)
            assert guest.wait(PATIENCE_S) == 130
            assert eventually(page, 2) == first, "Ctrl-C leaves the room"
        demo.send_signal(signal.SIGINT)
        assert demo.wait(PATIENCE_S) == 130
    with av.open(str(out)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) > 48_000 and np.abs(sound).max() > 0.02


async def the_page_s_example(page: str) -> None:
    """The example with media of docs/conference.md: a participant speaks, and sees and hears another one."""
    text = (Path(__file__).parents[2] / "docs/conference.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "room.watch" in code]
    async with MienClient(page.partition("/room/")[0]) as mien:
        room_id = (await mien.rooms())[0].room_id
        bob = (await mien.room(room_id)).participants[0]
        ada = await mien.join_room(room_id, "ada of the page", avatar_id="mien")
        voice = LoopedVoice(str(SPEAKERS[0].voice))
        voice.begin(time.monotonic())
        names: dict[str, object] = {"Room": Room, "ada": ada, "bob": bob, "heard": set(), "voice": voice}
        names |= {"packets": packets, "track": MotionTrack.load(SPEAKERS[0].track)}
        running = eval(compile(example, "conference.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        async with asyncio.timeout(PATIENCE_S):
            await running
        await mien.remove_participant(room_id, ada.participant_id, ada.token)


def record_the_guest(page: str, identity: str, out: Path) -> None:
    """`mien watch --record` of one participant's session."""
    url = page.partition("/room/")[0]
    room_id = httpx.get(f"{url}/v1/rooms", trust_env=False).json()["rooms"][0]["room_id"]
    people = httpx.get(f"{url}/v1/rooms/{room_id}", trust_env=False).json()["participants"]
    whep_url = next(one["whep_url"] for one in people if one["identity"] == identity)
    command = [*MIEN, "watch", whep_url, "--seconds", "6", "--record", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
