"""What `mien join` makes of a room's address."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mien_client.api import BadAddress, BadToken
from mien_client.cli import main
from mien_client.joining import Place, events_url, place_of
from mien_client.speaking import DEMO_TRACK


def token(**claims: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def test_a_name_is_a_room_of_the_gateway() -> None:
    assert place_of("stand up", "http://here:8080") == Place("http://here:8080", "stand up", None)


def test_an_address_names_the_gateway_and_its_token_the_room() -> None:
    assert place_of("https://meet.example/room/demo", "http://here") == Place("https://meet.example", "demo", None)
    one = token(sub="p", room="r1")
    assert place_of(f"https://meet.example:8443/room/demo#token={one}", "") == Place(
        "https://meet.example:8443", "r1", one
    )
    assert events_url("https://meet.example", "r1") == "wss://meet.example/v1/rooms/r1/events"


@pytest.mark.parametrize(
    "address", ["http://here/", "http://here/room/", "http://here/v1/rooms/r1", "ftp://here/room/a"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(BadAddress, match=r"is not (the address of a room|an address)"):
        place_of(address, "")


@pytest.mark.parametrize("given", ["nonsense", "a.b.c", token(sub="p"), "a.W10.c"])
def test_a_token_of_something_else_is_named_and_not_quoted(given: str) -> None:
    with pytest.raises(BadToken) as refused:
        place_of(f"http://here/room/r#token={given}", "")
    assert str(refused.value) == "the token is not one of a participant of a room: copy the whole address again"


def test_options_of_a_single_speaker_are_refused_for_a_meeting(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--participants", "2", "--record", str(tmp_path / "out.mp4")])
    assert result.exit_code == 2 and "--record, --motion and --avatar are for one participant" in result.output
    for count in ("0", "7"):
        assert CliRunner().invoke(main, ["demo", "--participants", count]).exit_code == 2
    both = CliRunner().invoke(main, ["join", "demo", "--clip", "a.mp4", "--track", str(DEMO_TRACK)])
    assert both.exit_code == 2 and "--clip and --track exclude each other" in both.output


def test_what_cannot_be_joined_is_said_in_one_line() -> None:
    for arguments, says in (
        (["demo", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9 does not answer"),
        (["demo", "--clip", "absent.mp4"], "absent.mp4 cannot be read"),
        (["demo", "--audio", "absent.wav"], "absent.wav cannot be opened"),
    ):
        result = CliRunner().invoke(main, ["join", *arguments])
        assert result.exit_code == 1 and says in result.output and "Traceback" not in result.output
