"""Which node of a Cluster has a slot: from the answer to CLUSTER SLOTS."""

from __future__ import annotations

from typing import Any

import pytest
from redis.crc import key_slot

from mien_shared.bus import keys
from mien_shared.bus.address import Node
from mien_shared.bus.masters import owner_of
from mien_shared.bus.probe import wrong_kind

ASKED = Node("asked", 7000)


def member(host: bytes | None, port: int) -> list[Any]:
    return [host, port, b"an id", []]


def test_the_master_of_the_range_that_has_the_slot() -> None:
    ranges = [[0, 99, member(b"a", 1), member(b"b", 2)], [100, 16383, member(b"c", 3), member(b"d", 4)]]
    assert owner_of(ranges, 99, ASKED) == (Node("a", 1), [Node("a", 1), Node("b", 2), Node("c", 3), Node("d", 4)])
    assert owner_of(ranges, 100, ASKED)[0] == Node("c", 3)


@pytest.mark.parametrize("host", [b"", None])
def test_a_node_without_a_name_is_where_it_was_asked(host: bytes | None) -> None:
    assert owner_of([[0, 16383, member(host, 6379)]], 5, ASKED) == (Node("asked", 6379), [Node("asked", 6379)])


def test_a_slot_without_a_node_has_no_master() -> None:
    assert owner_of([[0, 99, member(b"a", 1)]], 100, ASKED)[0] is None
    assert owner_of([[0, 99, member(b"?", 1), member(b"b", 2)]], 5, ASKED) == (None, [Node("b", 2)])
    assert owner_of([], 5, ASKED) == (None, [])


def test_all_keys_are_in_one_slot() -> None:
    names = [life.keys.replace("*", "an-id") for life in keys.LIVES]
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"mien")}


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (b"cluster", "REDIS_URL leads to a node of a Redis Cluster: write redis+cluster:// instead of redis://"),
        (b"sentinel", "REDIS_URL leads to a Sentinel: write redis+sentinel://HOST:PORT,HOST:PORT/MASTER"),
        (b"standalone", None),
    ],
)
def test_what_a_plain_url_leads_to(mode: bytes, text: str | None) -> None:
    assert wrong_kind({b"server": b"redis", b"mode": mode, b"role": b"master"}) == text
    assert wrong_kind([b"server", b"redis", b"mode", mode, b"role", b"master"]) == text


def test_a_server_without_hello_is_taken_for_a_single_one() -> None:
    assert wrong_kind(Exception("unknown command")) is None
