"""`mien send` and `mien watch` in a closed deployment: speaking needs an API key, watching needs a token."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import sys
from pathlib import Path

import pytest

from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK

pytestmark = pytest.mark.e2e

API_KEY = secrets.token_urlsafe(32)
DRAWN = Path(__file__).parents[2] / "services/gateway/mien_gateway/bundled/mien.png"


async def mien(*arguments: str, key: str | None = None) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if name != "MIEN_API_KEY"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mien_client",
        *arguments,
        env=environment | ({"MIEN_API_KEY": key} if key else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def told(*arguments: str) -> tuple[int | None, str]:
    """The exit status of `mien` with the key, and all that it printed."""
    process = await mien(*arguments, key=API_KEY)
    out, complaint = await process.communicate()
    return process.returncode, out.decode() + complaint.decode()


async def an_operator_adds_lists_and_deletes_an_avatar(url: str) -> None:
    status, says = await told("avatar", "add", str(DRAWN), "--url", url)
    assert (status, "consent-missing" in says) == (1, True), says
    status, avatar_id = await told("avatar", "add", str(DRAWN), "--consent", "drawn", "--url", url)
    assert status == 0, avatar_id
    _, listed = await told("avatar", "list", "--url", url)
    assert {"mien  -", f"{avatar_id.strip()}  drawn"} <= set(listed.splitlines())
    assert await told("avatar", "delete", avatar_id.strip(), "--url", url) == (0, "")
    assert avatar_id.strip() not in (await told("avatar", "list", "--url", url))[1]


async def test_a_key_speaks_and_its_link_watches() -> None:
    options = StackOptions(
        gateway_port=0, signaling_port=0, generator_env={"MIEN_DEMO_OPEN": "false", "MIEN_API_KEYS": API_KEY}
    )
    async with Stack(options) as stack:
        for arguments, says in ((["--api-key", "no key"], "api-key-invalid"), ([], "api-key-missing")):
            refused = await mien("send", str(DEMO_TRACK), "--url", stack.url, *arguments)
            _, complaint = await refused.communicate()
            assert refused.returncode == 1
            assert says in complaint.decode() and "Traceback" not in complaint.decode()

        await an_operator_adds_lists_and_deletes_an_avatar(stack.url)
        speaker = await mien("send", str(DEMO_TRACK), "--url", stack.url, key=API_KEY)
        try:
            assert speaker.stderr is not None
            line = (await speaker.stderr.readline()).decode()
            link = re.search(r"http://\S+#session=\S+&token=[^\s;]+", line)
            assert link, line
            viewer = await mien("watch", link[0], "--seconds", "1", "--json")
            report, complaint = await viewer.communicate()
            assert viewer.returncode == 0, complaint.decode()
            assert json.loads(report)["frames"] > 10
            stranger = await mien("watch", link[0].partition("&token=")[0], "--seconds", "1")
            _, complaint = await stranger.communicate()
            assert "token-missing" in complaint.decode()
        finally:
            speaker.terminate()
            await speaker.communicate()
