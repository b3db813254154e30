"""What a user can do wrong with `mien` ends in one clear line, never in a traceback."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from clip_files import write_sound

from mien_client import cli
from mien_client.speaking import DEMO_TRACK

USAGE, FAILURE = 2, 1


def mien(*arguments: str) -> tuple[int, str]:
    """The exit status of `mien`, and its error. Fails for a traceback and for more than one line of error."""
    result = CliRunner().invoke(cli.main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    *_, last = result.stderr.splitlines()
    if result.exit_code == FAILURE:
        assert result.stderr.splitlines() == [last]
    assert last.startswith("Error: ")
    return result.exit_code, last.removeprefix("Error: ")


def test_a_consent_that_there_is_not() -> None:
    status, says = mien("avatar", "add", __file__, "--consent", "yes")
    assert (status, says) == (USAGE, "Invalid value for '--consent': 'yes' is not one of 'self', 'granted', 'drawn'.")


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["demo", "up"])
@pytest.mark.parametrize("option", ["--port", "--signaling-port"])
@pytest.mark.parametrize("port", ["65536", "-1"])
def test_a_port_that_there_is_not(command: str, option: str, port: str) -> None:
    status, says = mien(command, option, port)
    assert (status, says) == (USAGE, f"Invalid value for '{option}': {port} is not in the range 0<=x<=65535.")


def test_one_port_for_two_services() -> None:
    assert mien("up", "--port", "18099", "--signaling-port", "18099") == (
        FAILURE,
        "gateway and signaling cannot both use port 18099: choose another",
    )


def test_a_port_that_is_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        status, says = mien("demo", "--port", str(port), "--signaling-port", "0")
    assert (status, says) == (FAILURE, f"port {port}, which gateway needs, is already in use: choose another")


@pytest.mark.parametrize("command", [["demo"], ["watch", "http://127.0.0.1:9/v1/whep/x"]])
def test_a_recording_that_cannot_be_written(tmp_path: Path, command: list[str]) -> None:
    missing = tmp_path / "nowhere"
    assert mien(*command, "--record", str(missing / "x.mp4")) == (
        USAGE,
        f"Invalid value for '--record': there is no folder {missing}",
    )
    assert mien(*command, "--record", str(tmp_path)) == (
        USAGE,
        f"Invalid value for '--record': File '{tmp_path}' is a directory.",
    )


def test_a_recording_in_a_folder_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # an administrator may write everywhere
    path = tmp_path / "x.mp4"
    assert mien("demo", "--record", str(path)) == (
        USAGE,
        f"Invalid value for '--record': {path} cannot be written: permission denied",
    )


def test_data_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert mien("up", "--port", "0", "--signaling-port", "0", "--data", str(tmp_path / "file/data")) == (
        FAILURE,
        f"{tmp_path}/file/data/avatars: Not a directory",
    )


def test_a_temporary_folder_that_there_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked up once
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        status, says = mien("demo", "--port", str(port), "--signaling-port", "0")
    # It gets as far as with another folder: Python takes the next one that there is.
    assert (status, says) == (FAILURE, f"port {port}, which gateway needs, is already in use: choose another")


def test_no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    says = "No usable temporary directory found in ['/tmp', '/var/tmp']"

    def mkdtemp(**_: object) -> str:
        raise FileNotFoundError(2, says)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    assert mien("demo", "--port", "0", "--signaling-port", "0") == (FAILURE, says)


def test_a_camera_for_a_clip() -> None:
    assert mien("send", "clip.mp4", "--camera", "/dev/video1") == (
        USAGE,
        "--camera /dev/video1 needs SOURCE to be `camera`",
    )


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_track_that_is_a_folder_or_missing_or_none(tmp_path: Path) -> None:
    (tmp_path / "folder.motion").mkdir()
    (tmp_path / "text.motion").write_text("hello")
    assert mien("send", str(tmp_path / "folder.motion")) == (FAILURE, f"{tmp_path}/folder.motion: Is a directory")
    assert mien("send", str(tmp_path / "no.motion")) == (FAILURE, f"{tmp_path}/no.motion: No such file or directory")
    status, says = mien("send", str(tmp_path / "text.motion"))
    assert (status, says) == (
        FAILURE, "text.motion has 5 bytes: a motion track is one or more packets of 128 bytes",
    )  # fmt: skip
    status, says = mien("demo", "--motion", str(tmp_path))
    assert (status, says) == (USAGE, f"Invalid value for '--motion': File '{tmp_path}' is a directory.")


def test_a_clip_that_cannot_be_played_needs_no_service(tmp_path: Path) -> None:
    clip = write_sound(tmp_path / "audio.m4a", "aac")
    assert mien("send", str(clip), "--url", "http://127.0.0.1:9") == (FAILURE, f"{clip} has no video, only sound")


def test_a_camera_that_there_is_not(tmp_path: Path) -> None:
    status, says = mien("send", "camera", "--camera", str(tmp_path / "video9"))
    assert status == FAILURE
    assert f"{tmp_path}/video9" in says


def test_a_picture_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, html: str) -> None:
    read_bytes = Path.read_bytes

    def read_or_refuse(path: Path) -> bytes:  # the file's mode does not stop an administrator
        if path.name == "face.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    (tmp_path / "face.jpg").touch()
    monkeypatch.setattr(Path, "read_bytes", read_or_refuse)
    status, says = mien("send", str(DEMO_TRACK), "--url", html, "--avatar", str(tmp_path / "face.jpg"))
    assert (status, says) == (FAILURE, f"{tmp_path}/face.jpg: Permission denied")


# --- addresses and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:8080/#session=abc&token=t", "127.0.0.1:8080/ is not an address: it must begin with http:// or"),
        ("localhost", "localhost is not an address: it must begin with http:// or"),
        ("ftp://127.0.0.1/x", "ftp://127.0.0.1/x is not an address: it must begin with http:// or"),
        ("http://", "http:// is not an address: it must begin with http:// or"),
        ("http://127.0.0.1:99999/x", "http://127.0.0.1:99999/x is not an address: Port out of range 0-65535"),
        ("http://[::1/x", "http://[::1/x is not an address: Invalid IPv6 URL"),
    ],
)
def test_an_address_that_is_none(url: str, says: str) -> None:
    for arguments in (["watch", url], ["send", str(DEMO_TRACK), "--url", url]):
        status, said = mien(*arguments)
        assert status == FAILURE
        assert said.startswith(says)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/#session=&token=t"])
def test_a_page_without_a_session(url: str) -> None:
    status, says = mien("watch", url)
    assert status == FAILURE
    assert says.endswith("names no session: a watch page's address ends in #session= and the session's id")
    assert "token" not in says


def test_a_service_that_does_not_run() -> None:
    for arguments in (["watch", "http://127.0.0.1:9/whep"], ["send", str(DEMO_TRACK), "--url", "http://127.0.0.1:9"]):
        status, says = mien(*arguments)
        assert status == FAILURE
        assert says.endswith(" does not answer: All connection attempts failed")


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_no_request_can_carry(key: str) -> None:
    says = "the API key or token has characters that no request can carry: copy it again"
    assert mien("send", str(DEMO_TRACK), "--api-key", key) == (FAILURE, says)
    assert mien("watch", "http://127.0.0.1:9/whep", "--token", key) == (FAILURE, says)


# --- something else answers -------------------------------------------------------------------------------------------


class _Website(BaseHTTPRequestHandler):
    """Answers every call with a page, and calls below /moved with a redirection."""

    def do_GET(self) -> None:
        body = b"<html>hello</html>"
        if self.path.startswith("/moved"):
            self.send_response(301)
            self.send_header("Location", "https://other.example/")
        else:
            self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def html() -> Iterator[str]:
    """The address of a website that is not Mien."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Website) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_website_is_not_mien(html: str) -> None:
    gateway = (FAILURE, f"{html} answers, but not as Mien's gateway does")
    assert mien("send", str(DEMO_TRACK), "--url", html) == gateway
    assert mien("watch", f"{html}/#session=abc") == gateway
    assert mien("watch", f"{html}/whep") == (FAILURE, f"{html}/whep answers, but not as a WHEP endpoint does")


def test_a_redirection_is_named(html: str) -> None:
    says = f"{html}/moved leads to https://other.example/: use the address that it leads to"
    assert mien("watch", f"{html}/moved") == (FAILURE, says)
