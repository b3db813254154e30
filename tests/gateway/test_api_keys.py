"""Operators' keys: any of several opens, by itself or known by its digest alone."""

from __future__ import annotations

import hashlib

import pytest

from mien_gateway.api_keys import ApiKeys, is_digest

FIRST, SECOND = "the first operator's key, long enough", "the second operator's key, long enough"


def test_several_keys_are_good_at_once_and_each_is_someone_else() -> None:
    keys = ApiKeys.of([FIRST, SECOND])
    owners = {keys.owner(FIRST), keys.owner(SECOND)}
    assert None not in owners and len(owners) == 2
    assert ApiKeys.of([SECOND]).owner(FIRST) is None, "a key that was taken out opens nothing"


@pytest.mark.parametrize("key", ["", "x", FIRST[:-1], FIRST + " ", FIRST.upper(), "\udcff", "é"])
def test_anything_else_opens_nothing(key: str) -> None:
    assert ApiKeys.of([FIRST, SECOND]).owner(key) is None


def test_without_keys_nothing_opens() -> None:
    assert ApiKeys.of([]).owner("") is None


def test_a_digest_stands_for_its_key_and_opens_nothing_itself() -> None:
    digest = f"sha256:{hashlib.sha256(FIRST.encode()).hexdigest()}"
    keys = ApiKeys.of([digest])
    assert keys.owner(FIRST) == ApiKeys.of([FIRST]).owner(FIRST)
    assert keys.owner(digest) is None
    assert is_digest(digest) and not is_digest(digest.upper()) and not is_digest(FIRST)


def test_no_key_can_be_read_from_what_is_kept() -> None:
    keys = ApiKeys.of([FIRST])
    assert FIRST not in repr(keys)
    assert FIRST.encode() not in b"".join(keys.digests)
