"""Whose datagram it is, and that no stranger and no other viewer can change that."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from aioice import stun

from mien_signaling.media_paths import MAX_ADDRESSES, Address, Dropped, Paths

HERE, THERE = ("192.0.2.1", 1000), ("192.0.2.2", 2000)
MEDIA, DTLS = b"\x80" + bytes(20), b"\x16" + bytes(20)
TRANSACTION = b"a transactio"


@dataclass(eq=False)
class Agent:
    ufrag: str
    password: str = "p" * 22
    remote_password: str | None = "r" * 22


def request(agent: Agent, password: str = "p" * 22, **changes: object) -> bytes:
    message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{agent.ufrag}:them"
    message.attributes["PRIORITY"] = 1
    for name, value in changes.items():
        if value is None:
            del message.attributes[name]
        else:
            message.attributes[name] = value
    message.add_message_integrity(password.encode())
    return bytes(message)


def response(
    password: str = "r" * 22, transaction_id: bytes = TRANSACTION, kind: stun.Class = stun.Class.RESPONSE
) -> bytes:
    message = stun.Message(message_method=stun.Method.BINDING, message_class=kind, transaction_id=transaction_id)
    message.attributes["XOR-MAPPED-ADDRESS"] = HERE
    message.add_message_integrity(password.encode())
    return bytes(message)


def joined(*agents: Agent) -> Paths[Agent]:
    paths: Paths[Agent] = Paths()
    for agent in agents:
        paths.join(agent)
    return paths


ONE, TWO = Agent("one"), Agent("two")


@pytest.mark.parametrize("datagram", [MEDIA, DTLS], ids=["media", "dtls"])
def test_media_is_the_owners_of_its_address(datagram: bytes) -> None:
    paths = joined(ONE, TWO)
    assert paths.route(datagram, HERE) is Dropped.UNKNOWN_ADDRESS
    assert paths.route(request(ONE), HERE) is ONE
    assert paths.route(request(TWO), THERE) is TWO
    assert paths.route(datagram, HERE) is ONE
    assert paths.route(datagram, THERE) is TWO


WRONG = {
    "nothing": (b"", Dropped.UNKNOWN_ADDRESS),
    "media": (MEDIA, Dropped.UNKNOWN_ADDRESS),
    "half a header": (b"\x00", Dropped.MALFORMED),
    "zeros": (b"\x00\x01" + bytes(40), Dropped.MALFORMED),
    "a request for another": (request(Agent("else")), Dropped.UNKNOWN_UFRAG),
    "a request for no one": (request(ONE, USERNAME=None), Dropped.UNKNOWN_UFRAG),
    "an empty name": (request(ONE, USERNAME=""), Dropped.UNKNOWN_UFRAG),
    "a wrong signature": (request(ONE, password="q" * 22), Dropped.UNAUTHENTICATED),
    "no priority": (request(ONE, PRIORITY=None), Dropped.MALFORMED),
    "a request cut short": (request(ONE)[:-8], Dropped.MALFORMED),
    "an answer": (response(), Dropped.UNKNOWN_TRANSACTION),
    "an error": (response(kind=stun.Class.ERROR), Dropped.UNKNOWN_TRANSACTION),
    "an indication": (response(kind=stun.Class.INDICATION), Dropped.UNKNOWN_ADDRESS),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_viewer_signed_takes_no_address(name: str) -> None:
    datagram, reason = WRONG[name]
    paths = joined(ONE)
    assert paths.route(datagram, HERE) is reason
    assert len(paths) == 0


def test_an_attribute_of_a_wrong_length_is_malformed() -> None:
    message = bytearray(request(ONE))
    at = message.index(b"\x00\x24\x00\x04")
    message[at + 3] = 3
    assert joined(ONE).route(bytes(message), HERE) is Dropped.MALFORMED


def test_a_request_does_not_take_an_address_that_another_viewer_has() -> None:
    """Somebody with a password may send from a forged address. The request reaches its viewer; the media stays."""
    paths = joined(ONE, TWO)
    paths.route(request(ONE), HERE)
    assert paths.route(request(TWO), HERE) is TWO
    assert paths.route(MEDIA, HERE) is ONE


def test_an_answer_to_our_own_request_proves_who_is_at_an_address() -> None:
    """A NAT or a relay gives the address of a viewer that is gone to another."""
    paths = joined(ONE, TWO)
    paths.route(request(ONE), HERE)
    paths.asked(TWO, TRANSACTION, HERE)
    assert paths.route(response(), HERE) is TWO
    assert paths.route(MEDIA, HERE) is TWO
    paths.leave(ONE)
    assert paths.route(MEDIA, HERE) is TWO


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (response(password="q" * 22), HERE),
        (response(kind=stun.Class.ERROR), HERE),
        (response(), THERE),  # asked elsewhere: its sender knows the transaction, and may have forged this address
    ],
    ids=["wrong signature", "error", "from elsewhere"],
)
def test_an_answer_that_proves_nothing_takes_no_address(answer: bytes, source: Address) -> None:
    paths = joined(ONE, TWO)
    paths.route(request(ONE), source)
    paths.asked(TWO, TRANSACTION, HERE)
    assert paths.route(answer, source) is TWO
    assert paths.route(MEDIA, source) is ONE


def test_an_answer_takes_an_address_only_with_the_viewers_password() -> None:
    nameless = Agent("nameless", remote_password=None)
    paths = joined(nameless)
    paths.asked(nameless, TRANSACTION, HERE)
    assert paths.route(response(), HERE) is nameless
    assert paths.route(MEDIA, HERE) is Dropped.UNKNOWN_ADDRESS


def test_an_answered_request_is_forgotten() -> None:
    paths = joined(ONE)
    paths.asked(ONE, TRANSACTION, HERE)
    paths.answered(TRANSACTION)
    assert paths.route(response(), HERE) is Dropped.UNKNOWN_TRANSACTION


def test_a_viewer_takes_only_so_many_addresses() -> None:
    paths = joined(ONE, TWO)
    for port in range(MAX_ADDRESSES):
        assert paths.route(request(ONE), ("192.0.2.1", port)) is ONE
    assert paths.route(request(ONE), ("192.0.2.1", MAX_ADDRESSES)) is Dropped.TOO_MANY_ADDRESSES
    assert paths.route(MEDIA, ("192.0.2.1", MAX_ADDRESSES)) is Dropped.UNKNOWN_ADDRESS
    assert paths.route(request(ONE), ("192.0.2.1", 0)) is ONE
    assert paths.route(request(TWO), ("192.0.2.1", MAX_ADDRESSES)) is TWO


def test_no_damaged_message_raises_or_takes_an_address() -> None:
    random = Random(1)
    whole = request(ONE)
    signed = len(whole) - stun.FINGERPRINT_LENGTH  # an attribute that follows the signature is ignored
    for _ in range(20_000):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        cut = bytes(damaged[: random.randint(0, len(damaged))]) if random.random() < 0.3 else bytes(damaged)
        found = joined(ONE).route(cut, HERE)
        assert isinstance(found, Dropped) or cut[:signed] == whole[:signed]


def test_nothing_of_a_viewer_outlives_it() -> None:
    paths = joined(ONE, TWO)
    paths.route(request(ONE), HERE)
    paths.asked(ONE, TRANSACTION, THERE)
    paths.leave(ONE)
    paths.leave(ONE)
    assert len(paths) == 0
    assert paths.route(MEDIA, HERE) is Dropped.UNKNOWN_ADDRESS
    assert paths.route(request(ONE), HERE) is Dropped.UNKNOWN_UFRAG
    assert paths.route(response(), THERE) is Dropped.UNKNOWN_TRANSACTION
    assert paths.route(request(TWO), HERE) is TWO
