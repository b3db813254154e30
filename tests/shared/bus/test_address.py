"""The forms of REDIS_URL, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from mien_shared.bus.address import Node, RedisUrlError, Topology, parse_address


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@redis.example:6380/2?socket_timeout=3",
        "rediss://redis.example?ssl_ca_certs=/ca.pem",
        "unix:///run/redis.sock?db=1",
        "unix://user:password@/run/redis.sock",
    ],
)
def test_a_single_server(url: str) -> None:
    address = parse_address(url)
    assert (address.topology, address.nodes) == (Topology.SERVER, ())


def test_sentinels_with_two_logins() -> None:
    address = parse_address(
        "redis+sentinel://gateway:p%40%2Fss@one.example,[fd00::1]:5000,three.example:26380/mymaster/2"
        "?sentinel_username=asker&sentinel_password=a%26b&socket_timeout=3"
    )
    assert address.topology is Topology.SENTINEL
    assert address.nodes == (Node("one.example", 26379), Node("fd00::1", 5000), Node("three.example", 26380))
    assert address.master_name == "mymaster"
    assert address.options == {"username": "gateway", "password": "p@/ss", "db": 2, "socket_timeout": 3.0}
    assert address.asking == {"username": "asker", "password": "a&b"}
    assert not address.uses_tls


def test_sentinels_without_a_login_of_their_own_get_none() -> None:
    address = parse_address("redis+sentinel://gateway:secret@one/mymaster?db=3")
    assert address.options == {"username": "gateway", "password": "secret", "db": 3}
    assert address.asking == {}


def test_tls_is_for_the_servers_and_for_those_that_are_asked() -> None:
    address = parse_address("rediss+sentinel://one/mymaster?ssl_ca_certs=/ca.pem")
    assert address.uses_tls
    assert address.options == address.asking == {"ssl_ca_certs": "/ca.pem"}


def test_a_cluster_has_one_login() -> None:
    address = parse_address("rediss+cluster://gateway:secret@one,two:7000/0?ssl_ca_certs=/ca.pem&socket_timeout=2")
    assert (address.topology, address.uses_tls) == (Topology.CLUSTER, True)
    assert address.nodes == (Node("one", 6379), Node("two", 7000))
    assert address.asking == {"username": "gateway", "password": "secret", "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "must begin with one of redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "),
        ("redis.example:6379", "must begin with one of redis://"),
        ("https://redis.example", "must begin with one of redis://"),
        ("sentinel://one/mymaster", "must begin with one of redis://"),
        ("redis://redis.example:none", "has no valid host and port"),
        ("redis://redis.example:65536", "has no valid host and port"),
        ("redis+sentinel:///mymaster", "names no host"),
        ("redis+sentinel://user:secret@/mymaster", "names no host"),
        ("redis+cluster://", "names no host"),
        ("redis+sentinel://one,,two/mymaster", "has an empty host at place 2"),
        (
            "redis+sentinel://one,two:0/mymaster",
            "has a host at place 2 that is neither HOST, HOST:PORT nor [IPV6]:PORT",
        ),
        ("redis+cluster://one:65536", "has a host at place 1 that is neither HOST, HOST:PORT nor [IPV6]:PORT"),
        ("redis+cluster://fd00::1", "has a host at place 1 that is neither HOST, HOST:PORT nor [IPV6]:PORT"),
        ("redis+sentinel://one", "does not name the master: write redis+sentinel://HOST:PORT,HOST:PORT/MASTER"),
        ("redis+sentinel://one/?db=1", "does not name the master: write redis+sentinel://HOST:PORT,HOST:PORT/MASTER"),
        ("redis+sentinel://one/mymaster/none", "has a database that is not a number"),
        ("redis+cluster://one/1", "names a database, but a Cluster has only one: leave out what follows the hosts"),
        ("redis+cluster://one?db=1", "names a database, but a Cluster has only one: leave out what follows the hosts"),
        ("redis://one?socket_timeout=long", "has a wrong value for socket_timeout"),
        ("redis://one?sockettimeout=1", "has an unknown option, sockettimeout"),
        ("redis+sentinel://one/mymaster?ssl_ca_certs=/ca.pem", "has an unknown option, ssl_ca_certs"),
        ("redis+cluster://one?sentinel_user=x", "has an unknown option, sentinel_user"),
    ],
)
def test_a_wrong_url_is_told_in_one_line(url: str, text: str) -> None:
    with pytest.raises(RedisUrlError) as refused:
        parse_address(url)
    assert str(refused.value).startswith(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("character", "/?#[")
def test_a_password_that_is_not_encoded_is_not_quoted(scheme: str, character: str) -> None:
    with pytest.raises(RedisUrlError) as refused:
        parse_address(f"{scheme}://gateway:half-a{character}half-b@redis.example:6379/mymaster")
    assert "half" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://u:secret@one/m?sentinel_password=other", "redis+cluster://u:secret@one"]
)
def test_an_address_shows_no_password(url: str) -> None:
    assert "secret" not in repr(parse_address(url))
    assert "other" not in repr(parse_address(url))
