"""Offers that no browser makes, one after the other, and the service's answer to each.

Run it with `PYTHONPATH=tests python -m hostile.forged_offers URL --token TOKEN`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostile.whep import Endpoint, main, new_client, verdicts
from signaling.offers import AUDIO, DATA, ODD, VIDEO, bundle_only, changed, description

_MANY_CANDIDATES = "".join(f"a=candidate:{n} 1 udp 1 198.51.100.{n % 250} {1024 + n} typ host\n" for n in range(200))

OFFERS = {
    "seven sections that send": description(
        VIDEO, *(changed(VIDEO, mid=f"s{n}", direction="sendonly") for n in range(7)), group=None
    ),
    "seven sections that send and receive": description(
        VIDEO, *(changed(VIDEO, mid=f"s{n}", direction="sendrecv") for n in range(7)), group=None
    ),
    "a hundred sections": description(*(changed(VIDEO, mid=f"s{n}") for n in range(100))),
    "a data channel": description(VIDEO, DATA, group="v d"),
    "a data channel that carries the connection": description(DATA, VIDEO, group="d v"),
    "a kind that does not exist": description(ODD, VIDEO, group="x v"),
    "audio that carries the connection": description(AUDIO, VIDEO, group="a v"),
    "bundle-only without a group": description(AUDIO, bundle_only(VIDEO, shared_lines=True), group=None),
    "bundle-only alone in its group": description(bundle_only(VIDEO, shared_lines=True), group="v"),
    "two sections of one mid": description(VIDEO, VIDEO, group="v"),
    "a group of sections that are not there": description(VIDEO, group="v ghost"),
    "a mid that ends the line": description(VIDEO.replace("a=mid:v", "a=mid:v\x0ba=sendonly")),
    "two hundred targets for our checks": description(VIDEO + _MANY_CANDIDATES),
    "a name for us to look up": description(VIDEO + "a=candidate:9 1 udp 1 internal.example 53 typ host\n"),
    "an interface for us to use": description(VIDEO + "a=candidate:9 1 udp 1 fe80::1%lo 53 typ host\n"),
    "a port that does not exist": description(VIDEO + "a=candidate:9 1 udp 1 192.0.2.9 99999 typ host\n"),
    "credentials of sixty thousand bytes": description(VIDEO.replace("vfrag", "v" * 60_000)),
    "a payload type that looks like RTCP": description(VIDEO.replace("102", "72")),
    "no fingerprint that can be checked": description(VIDEO.replace("sha-256 AA:BB", "md5 AA:BB")),
    "a setup that does not exist": description(VIDEO.replace("actpass", "both")),
    "an extension id above those of RFC 8285": description(VIDEO.replace("extmap:4", "extmap:4096")),
}


@dataclass(frozen=True, slots=True)
class Result:
    """answers: for each offer its status, and what the answer says about each section."""

    answers: dict[str, str]
    viewers_connecting: float


async def attack(endpoint: Endpoint, seconds: float = 0.0) -> Result:
    """Send every offer once. seconds: not used."""
    answers = {}
    async with new_client() as client:
        for name, offer in OFFERS.items():
            response = await endpoint.post(client, offer)
            said = ", ".join(verdicts(response.text)) if response.status_code == 201 else ""
            answers[name] = f"{response.status_code} {said}".strip()
        connecting = await endpoint.metric(client, 'mien_viewers{state="connecting"}')
    return Result(answers, connecting)


if __name__ == "__main__":
    main("Send offers that no browser makes.", attack)
