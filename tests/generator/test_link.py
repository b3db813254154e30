"""Messages and descriptors between two ends of a link, and what ends it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from mien_generator.device.slots import anonymous_file
from mien_generator.link import MAX_MESSAGE_BYTES, Link, LinkClosed

#: More than one read of the receiver, and more than the sockets hold.
_MANY_BYTES = 3_000_000


@contextmanager
def two_ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = Link.pair()
    with closing(ours), closing(Link(theirs)) as other:
        yield ours, other


def wait_for_the_reader(link: Link) -> None:
    """Let this end wait for ever for room in the sockets: a thread of a busy machine may not read for a while."""
    with socket.socket(fileno=os.dup(link.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))


def file_of(content: bytes) -> int:
    """A descriptor of a file without a name that has this content."""
    descriptor = anonymous_file(len(content))
    os.pwrite(descriptor, content, 0)
    return descriptor


def content_of(descriptor: int) -> bytes:
    """Read such a file, and close the descriptor."""
    content = os.pread(descriptor, 100, 0)
    os.close(descriptor)
    return content


def open_here(file: os.stat_result) -> int:
    """How many descriptors of this process have this file open."""
    found = 0
    for name in os.listdir("/dev/fd"):
        try:
            stat = os.fstat(int(name))
        except OSError:  # the listing's own
            continue
        found += (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino)
    return found


@pytest.mark.parametrize("size", [0, 1, 65_528, 65_536, _MANY_BYTES, MAX_MESSAGE_BYTES])
def test_a_message_of_any_length_arrives_whole(size: int) -> None:
    message = os.urandom(size)
    with two_ends() as (ours, theirs), ThreadPoolExecutor(1) as receiver:
        wait_for_the_reader(ours)
        received = receiver.submit(theirs.receive)
        ours.send(message)
        assert received.result(30) == (message, [])


def test_messages_go_both_ways() -> None:
    with two_ends() as (ours, theirs):
        ours.send(b"question")
        assert theirs.receive() == (b"question", [])
        theirs.send(b"answer")
        assert ours.receive() == (b"answer", [])


def test_many_messages_of_one_read_stay_apart() -> None:
    messages = [bytes([number]) * number for number in range(200)]
    with two_ends() as (ours, theirs):
        for message in messages:
            ours.send(message)
        assert [theirs.receive()[0] for _ in messages] == messages


def test_a_message_that_comes_byte_by_byte_arrives_whole() -> None:
    ours, raw = Link.pair()
    with closing(ours), raw, ThreadPoolExecutor(1) as receiver:
        received = receiver.submit(ours.receive)
        for byte in struct.pack("<II", 5, 0) + b"bytes":
            raw.send(bytes([byte]))
        assert received.result(30) == (b"bytes", [])


def test_messages_of_many_threads_do_not_mix() -> None:
    with two_ends() as (ours, theirs), ThreadPoolExecutor(5) as senders:
        wait_for_the_reader(ours)

        def send(of: int) -> None:
            for _ in range(20):
                ours.send(bytes([of]) * 40_000)

        sending = [senders.submit(send, of) for of in range(4)]
        received = senders.submit(lambda: [theirs.receive()[0] for _ in range(80)])
        for sent in sending:
            sent.result(30)
        messages = received.result(30)
    assert all(len(message) == 40_000 and len(set(message)) == 1 for message in messages)
    assert sorted(message[0] for message in messages) == sorted([0, 1, 2, 3] * 20)


def test_descriptors_arrive_with_their_own_message() -> None:
    """All messages are sent before the first read, so that one read may bring several of them."""
    sent: list[tuple[bytes, list[bytes]]] = [
        (b"none", []),
        (b"none either", []),
        (b"one", [b"first"]),
        (b"none between", []),
        (b"two", [b"second", b"third"]),
        (b"directly after", [b"fourth"]),
        (b"most", [b"5", b"6", b"7", b"8"]),
        (b"none at the end", []),
    ]
    with two_ends() as (ours, theirs):
        for message, contents in sent:
            files = [file_of(content) for content in contents]
            ours.send(message, files)
            for descriptor in files:
                os.close(descriptor)  # the receiver has its own
        received = [theirs.receive() for _ in sent]
        assert [(message, [content_of(one) for one in descriptors]) for message, descriptors in received] == sent


def test_a_descriptor_of_a_long_message_comes_with_it() -> None:
    long, descriptor = os.urandom(_MANY_BYTES), file_of(b"of the long message")
    with two_ends() as (ours, theirs), ThreadPoolExecutor(1) as receiver:
        wait_for_the_reader(ours)
        received = receiver.submit(lambda: [theirs.receive() for _ in range(3)])
        ours.send(b"before")
        ours.send(long, [descriptor])
        ours.send(b"after")
        before, (message, descriptors), after = received.result(30)
    os.close(descriptor)
    assert (before, after) == ((b"before", []), (b"after", []))
    assert message == long
    assert [content_of(one) for one in descriptors] == [b"of the long message"]


def test_more_descriptors_than_a_message_carries_are_refused_and_the_link_goes_on() -> None:
    descriptor = file_of(b"x")
    with two_ends() as (ours, theirs):
        with pytest.raises(ValueError, match=r"^a message carries at most 4 descriptors, not 5$"):
            ours.send(b"too many", [descriptor] * 5)
        ours.send(b"next")
        assert theirs.receive() == (b"next", [])
    os.close(descriptor)


def test_a_message_that_is_too_long_is_refused_and_the_link_goes_on() -> None:
    with two_ends() as (ours, theirs):
        with pytest.raises(ValueError, match=r"^a message of 4194305 bytes is too long$"):
            ours.send(bytes(MAX_MESSAGE_BYTES + 1))
        ours.send(b"next")
        assert theirs.receive() == (b"next", [])


def test_a_message_whose_descriptors_are_missing_ends_the_link() -> None:
    """The system drops them if the receiver may not open more files."""
    ours, raw = Link.pair()
    with closing(ours), raw:
        raw.send(struct.pack("<II", 3, 1) + b"one")
        with pytest.raises(LinkClosed, match=r"^1 of 1 descriptors of a message are missing$"):
            ours.receive()


def test_no_descriptor_stays_open_once_both_ends_are_closed() -> None:
    taken, left, half = file_of(b"taken"), file_of(b"left"), file_of(b"of half a message")
    files = [os.fstat(descriptor) for descriptor in (taken, left, half)]
    ours, raw = Link.pair()
    sockets = [os.fstat(ours.fileno()), os.fstat(raw.fileno())]
    with raw:
        socket.send_fds(raw, [struct.pack("<II", 5, 1) + b"taken"], [taken])
        socket.send_fds(raw, [struct.pack("<II", 4, 1) + b"left"], [left])
        _, descriptors = ours.receive()
        socket.send_fds(raw, [struct.pack("<II", 900, 1) + b"half"], [half])
        for descriptor in (taken, left, half):
            os.close(descriptor)
        assert [content_of(one) for one in descriptors] == [b"taken"]
        _, descriptors = ours.receive()
        assert [content_of(one) for one in descriptors] == [b"left"]
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(LinkClosed):
            ours.receive()
        assert [open_here(file) for file in files] == [0, 0, 1]
        ours.close()
    assert [open_here(file) for file in files + sockets] == [0] * 5


def test_closing_closes_the_descriptors_of_messages_that_were_not_taken() -> None:
    first, second = file_of(b"first"), file_of(b"second")
    files = [os.fstat(first), os.fstat(second)]
    with two_ends() as (ours, theirs):
        ours.send(b"plain")
        ours.send(b"one", [first])
        ours.send(b"two", [second])
        os.close(first)
        os.close(second)
        assert theirs.receive() == (b"plain", [])
    assert [open_here(file) for file in files] == [0, 0]


# The end


def test_the_other_end_s_end_is_told_after_its_last_message() -> None:
    with two_ends() as (ours, theirs):
        theirs.send(b"last words")
        theirs.close()
        assert ours.receive() == (b"last words", [])
        with pytest.raises(LinkClosed, match="the other process has ended"):
            ours.receive()
        with pytest.raises(LinkClosed, match="the other process has ended or does not read"):
            ours.send(b"too late")


def test_a_process_that_is_killed_ends_the_link() -> None:
    ours, raw = Link.pair()
    with closing(ours), raw:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", f"import os, time; os.write({raw.fileno()}, b'{'x' * 8}'); time.sleep(600)"],
            pass_fds=[raw.fileno()],
        )
        raw.close()
        with ThreadPoolExecutor(1) as receiver:
            received = receiver.submit(ours.receive)
            child.kill()
            with pytest.raises(LinkClosed):
                received.result(30)
        child.wait()


def test_the_other_end_s_end_is_told_while_sending() -> None:
    ours, raw = Link.pair()
    with closing(ours), raw, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(ours.send, bytes(MAX_MESSAGE_BYTES))
        assert raw.recv(1)  # it has begun, and does not fit into the sockets
        raw.close()
        with pytest.raises(LinkClosed):
            sending.result(30)


def test_half_a_message_of_a_process_that_ended_is_no_message() -> None:
    ours, raw = Link.pair()
    with closing(ours):
        raw.send(struct.pack("<II", 5, 0) + b"hal")
        raw.close()
        with pytest.raises(LinkClosed):
            ours.receive()


def test_a_reader_that_never_reads_is_cut_off() -> None:
    with two_ends() as (ours, theirs), ThreadPoolExecutor(1) as sender:

        def flood() -> int:
            for number in range(100_000):
                try:
                    ours.send(bytes(1000))
                except LinkClosed:
                    return number
            raise AssertionError("somebody reads")

        sent = sender.submit(flood).result(60)
        assert 50 < sent < 20_000
        with pytest.raises(LinkClosed):
            ours.send(b"more")
        for _ in range(sent):
            assert theirs.receive() == (bytes(1000), []), "no message is cut in two"
        with pytest.raises(LinkClosed):
            theirs.receive()
        with pytest.raises(LinkClosed):
            ours.receive()


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES + 1, 2**32 - 1])
def test_a_length_that_no_message_has_ends_the_link(length: int) -> None:
    ours, raw = Link.pair()
    with closing(ours), raw:
        raw.send(struct.pack("<II", length, 0))
        for _ in range(2):
            with pytest.raises(LinkClosed, match=f"^a message of {length} bytes is too long$"):
                ours.receive()


@pytest.mark.parametrize("end", [Link.shut, Link.close])
def test_a_thread_that_receives_notices_that_its_own_end_was_closed(end: type) -> None:
    with two_ends() as (ours, theirs), ThreadPoolExecutor(1) as receiver:
        theirs.send(b"first")
        has_received = threading.Event()

        def receive() -> None:
            assert ours.receive() == (b"first", [])
            has_received.set()
            ours.receive()

        receiving = receiver.submit(receive)
        assert has_received.wait(30)
        end(ours)
        with pytest.raises(LinkClosed):
            receiving.result(30)


def test_a_closed_end_sends_and_receives_nothing() -> None:
    with two_ends() as (ours, _):
        ours.close()
        with pytest.raises(LinkClosed):
            ours.send(b"x")
        with pytest.raises(LinkClosed):
            ours.receive()
        ours.close()


def test_closing_a_copy_leaves_the_link_as_it_is() -> None:
    with two_ends() as (ours, theirs):
        Link.over(os.dup(ours.fileno())).close_copy()
        ours.send(b"still here")
        assert theirs.receive() == (b"still here", [])


def test_closing_a_copy_closes_descriptors_that_were_not_taken() -> None:
    """Else a forked process would keep another process' link open, and nobody would notice that process' death."""
    descriptor = file_of(b"another process' link")
    file = os.fstat(descriptor)
    with two_ends() as (ours, theirs):
        ours.send(b"plain")
        ours.send(b"one", [descriptor])
        os.close(descriptor)
        assert theirs.receive() == (b"plain", [])
        theirs.close_copy()
        assert open_here(file) == 0
