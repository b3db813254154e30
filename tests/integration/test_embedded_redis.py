"""The embedded Redis lives exactly as long as its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from mien_shared.bus.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.integration

_OWNER = """
import sys, time
from mien_shared.bus.embedded_redis import EmbeddedRedis
server = EmbeddedRedis()
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


def gone(path: Path, within_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not path.exists()


def test_it_starts_answers_stops_and_starts_again_at_the_same_address() -> None:
    server = EmbeddedRedis()
    for _ in range(2):
        server.start()
        with Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.info("server")["tcp_port"] == 0
            assert client.dbsize() == 0
            client.set("left", "behind")
        server.stop()
        assert not server.folder.exists()
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_owner_however_that_ends(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        with Redis.from_url(url) as client:
            server_pid = client.info("server")["process_id"]
        owner.send_signal(number)
        owner.wait()
    assert gone(Path(f"/proc/{server_pid}"))
    assert gone(Path(url.removeprefix("unix://")).parent)


def test_a_server_that_was_killed_leaves_nothing_once_its_owner_stops() -> None:
    server = EmbeddedRedis()
    server.start()
    with Redis.from_url(server.url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    server.stop()
    assert not server.folder.exists()
