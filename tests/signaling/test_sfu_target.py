"""The SFU's URLs: filled in for a session, and none of another origin."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from mien_shared.bus.messages import SessionRecord
from mien_signaling.sfu_target import BadUrl, ForeignUrl, NoKey, SfuTarget

ALONE = SessionRecord(session_id="s-1", avatar_id="a", created_at_ms=0)
IN_ROOM = ALONE.model_copy(update={"room_id": "r-1", "participant_id": "p-1"})


def test_url_and_bearer_are_filled_for_each_session() -> None:
    target = SfuTarget("https://sfu.test/{room_id}/{participant_id}/{session_id}?key={stream_key}", "key {stream_key}")
    endpoint = target.endpoint(IN_ROOM, "a/b c")
    assert endpoint.url.geturl() == "https://sfu.test/r-1/p-1/s-1?key=a%2Fb%20c"
    assert endpoint.bearer == "key a/b c"
    assert "key a/b c" not in repr(endpoint) and "key {stream_key}" not in repr(target)


@pytest.mark.parametrize(
    ("url", "bearer"), [("https://sfu.test/{room_id}", None), ("https://sfu.test/", "{stream_key}")]
)
def test_a_session_without_what_the_url_names_is_not_published(url: str, bearer: str | None) -> None:
    with pytest.raises(NoKey, match=r"the session has no (room_id|stream_key)"):
        SfuTarget(url, bearer).endpoint(ALONE, None)


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("ftp://sfu.test/", "must begin with https"),
        ("https:///path", "must name a host"),
        ("https://user:secret@sfu.test/", "and no user"),
        ("https://sfu.test:port/", "cannot be read"),
        ("https://sfu.test/a b", "printable ASCII"),
        ("https://sfu.test/" + "x" * 2000, "at most 2000"),
        ("https://{session_id}.sfu.test/", "path or the query only"),
        ("https://sfu.test/{session}", "is not known"),
    ],
)
def test_a_wrong_url_is_refused_at_the_start(url: str, flaw: str) -> None:
    with pytest.raises(ValueError, match=flaw):
        SfuTarget(url)


def test_a_wrong_bearer_and_a_wrong_origin_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="is not known"):
        SfuTarget("https://sfu.test/", "{password}")
    with pytest.raises(BadUrl, match="must begin with"):
        SfuTarget("https://sfu.test/", origins=("other.test",))


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("/resource/1", "https://sfu.test/resource/1"),
        ("resource/1", "https://sfu.test/whip/resource/1"),
        ("https://sfu.test:443/r", "https://sfu.test:443/r"),
        ("https://SFU.test/r", "https://SFU.test/r"),
        ("https://edge.test:8443/r", "https://edge.test:8443/r"),
    ],
)
def test_locations_of_its_own_origins_are_the_sfu_s(named: str, found: str) -> None:
    target = SfuTarget("https://sfu.test/whip/{session_id}", origins=("https://edge.test:8443",))
    assert target.resolve(named, urlsplit("https://sfu.test/whip/s-1")).geturl() == found


@pytest.mark.parametrize(
    "named",
    [
        "http://sfu.test/r",
        "https://sfu.test:8443/r",
        "https://other.test/r",
        "//other.test/r",
        "http://169.254.169.254/",
    ],
)
def test_a_location_elsewhere_gets_no_request(named: str) -> None:
    with pytest.raises(ForeignUrl, match="MIEN_SFU_ORIGINS"):
        SfuTarget("https://sfu.test/whip").resolve(named, urlsplit("https://sfu.test/whip"))


@pytest.mark.parametrize("named", ["https://user@sfu.test/", "file:///etc/passwd", "https://[sfu/", "/a b"])
def test_a_location_that_is_no_url_is_refused(named: str) -> None:
    with pytest.raises(BadUrl):
        SfuTarget("https://sfu.test/whip").resolve(named, urlsplit("https://sfu.test/whip"))
