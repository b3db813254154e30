"""Where webhooks may go, how they are signed, and when they are tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from mien_gateway.webhook_sender import (
    BadWebhookUrl,
    DeliveryFailed,
    checked_address,
    new_secret,
    refusal,
    request_bytes,
    signature,
    status_of,
    target_of,
)
from mien_gateway.webhooks import MAX_ATTEMPTS, WebhookEvent, body_of, wait_s


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://hooks.example/a", "the URL must begin with https://"),
        ("ftp://hooks.example/a", "the URL must begin with https://"),
        ("https://", "the URL must name a host and no user"),
        ("https://user:word@hooks.example/", "the URL must name a host and no user"),
        ("https://hooks.example/\r\nX: y", "the URL must be printable ASCII, at most 1000 characters"),
        ("https://hooks.example/a b", "the URL must be printable ASCII, at most 1000 characters"),
        ("https://hooks.example/" + "a" * 2000, "the URL must be printable ASCII, at most 1000 characters"),
        ("https://hooks.example:99999/", "the URL cannot be read: Port out of range 0-65535"),
    ],
)
def test_urls_that_are_refused(url: str, text: str) -> None:
    with pytest.raises(BadWebhookUrl) as refused:
        target_of(url, private_allowed=False)
    assert str(refused.value) == text


def test_a_url_is_taken_apart() -> None:
    target = target_of("https://Hooks.example/a/b?c=d#e", private_allowed=False)
    assert (target.host, target.port, target.path, target.is_tls) == ("hooks.example", 443, "/a/b?c=d", True)
    target = target_of("http://10.0.0.1:8080", private_allowed=True)
    assert (target.host, target.port, target.path, target.is_tls) == ("10.0.0.1", 8080, "/", False)


PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "192.0.2.1", "2001:db8::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused_unless_allowed(address: str) -> None:
    assert refusal(address, private_allowed=False) == f"{address} is a loopback, link-local or private address"
    assert refusal(address, private_allowed=True) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
def test_what_is_no_host_is_always_refused(address: str) -> None:
    for allowed in (False, True):
        assert refusal(address, allowed) == f"{address} is no address of a host"


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_public_addresses_may_get_requests(address: str) -> None:
    assert refusal(address, private_allowed=False) is None


@pytest.mark.parametrize("url", ["https://localhost/", "https://127.0.0.1/", "https://[::1]/", "https://2130706433/"])
async def test_a_name_of_loopback_is_refused_when_it_is_resolved(url: str) -> None:
    with pytest.raises((BadWebhookUrl, OSError)) as refused:
        await checked_address(target_of(url, private_allowed=False), private_allowed=False)
    if isinstance(refused.value, BadWebhookUrl):
        assert "is a loopback, link-local or private address" in str(refused.value)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the Standard Webhooks specification.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected


def test_a_request_is_whole() -> None:
    target, secret = target_of("https://hooks.example:8443/a", private_allowed=False), new_secret()
    head, _, body = request_bytes(target, secret, "evt_1", 17, b"{}").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == "POST /a HTTP/1.1" and body == b"{}"
    assert headers["Host"] == "hooks.example:8443" and headers["Content-Length"] == "2"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = base64.b64encode(hmac.new(key, b"evt_1.17.{}", hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{made}"


@pytest.mark.parametrize("line", [b"", b"HTTP/1.1\r\n", b"HTTP/2 200\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n"])
def test_an_answer_that_is_not_http(line: bytes) -> None:
    with pytest.raises(DeliveryFailed, match="the receiver does not answer with HTTP"):
        status_of(line)


def test_waits_double_up_to_ten_minutes() -> None:
    waits = [wait_s(attempts) for attempts in range(1, MAX_ATTEMPTS)]
    assert waits[:4] == [1, 2, 4, 8] and max(waits) == 600
    assert 1200 < sum(waits) < 3600 - 60, "shorter than deliveries live in Redis"


def test_what_a_receiver_reads() -> None:
    body = json.loads(body_of(WebhookEvent.ROOM_STARTED, 1_700_000_000.5, {"room": {"room_id": "r"}}))
    assert body == {
        "type": "room_started",
        "timestamp": "2023-11-14T22:13:20.500Z",
        "data": {"room": {"room_id": "r"}},
    }
