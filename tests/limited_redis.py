"""A real Redis with the users that deploy/prepare makes, for the tests of their rights."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from mien_shared.bus.embedded_redis import server_binary

ROOT = Path(__file__).parents[1]
_START_TIMEOUT_S = 10.0
#: Of the test alone: it sees everything and may change the others' rights.
_ADMIN_PASSWORD = "of-the-test-alone"


@dataclass(frozen=True)
class LimitedRedis:
    """A server whose default user is off. url(user) connects as one of deploy/redis/users, or as "admin"."""

    folder: Path

    def url(self, user: str) -> str:
        return f"unix://{user}:{password_of(self.folder, user)}@{quote(str(self.folder / 'redis.sock'))}"


def password_of(folder: Path, user: str) -> str:
    """The password of one of deploy/redis/users, or of "admin", after prepare_users."""
    if user == "admin":
        return _ADMIN_PASSWORD
    return urlsplit((folder / f"deploy/secrets/redis_url_{user}.txt").read_text()).password or ""


def prepare_users(folder: Path) -> Path:
    """Make the users with deploy/prepare, and one more, "admin", that may do everything. Returns the ACL file."""
    (folder / "deploy/secrets").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/prepare", folder / "deploy")
    shutil.copytree(ROOT / "deploy/redis", folder / "deploy/redis")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MIEN_PUBLIC_IP": "203.0.113.9"}
    subprocess.run([folder / "deploy/prepare"], env=environment, check=True, capture_output=True)
    admin = f"user admin on #{hashlib.sha256(_ADMIN_PASSWORD.encode()).hexdigest()} ~* &* +@all\n"
    users = folder / "users"
    users.write_text((folder / "deploy/secrets/redis_users.txt").read_text() + admin)
    return users


@contextmanager
def limited_redis() -> Iterator[LimitedRedis]:
    """Make the users with deploy/prepare and start a server that loads them."""
    folder = Path(tempfile.mkdtemp(prefix="mien-", dir="/tmp"))  # the path of a Unix socket must be short
    try:
        users = prepare_users(folder)
        command = [str(server_binary()), "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--aclfile", str(users)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--acllog-max-len", "1000"]
        with (folder / "redis.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait_until_it_listens(server, folder)
            yield LimitedRedis(folder)
        finally:
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_listens(server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while True:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(folder / "redis.sock"))
            return
        log = (folder / "redis.log").read_text()
        assert server.poll() is None, f"the server ended: {log}"
        assert time.monotonic() < deadline_s, f"the server does not listen: {log}"
        time.sleep(0.02)
