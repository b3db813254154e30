"""The stress test of the 3D-avatar paper: 200 users at once, with a mean response time under 100 ms.

Every user is a real client with its own connections: a session, an uplink at 30 packets a second, and REST calls
(session state, avatar) with one second of think time on average. Two response times are measured: the round trip of a
call, and the time of an uplink packet from its capture to its generator's inbox.

`--consumer inbox` (the default) tests gateway, Redis and the inbox and lease code of a generator, but makes no faces,
because two cores cannot make 200 faces at 30 frames a second. `--consumer generator` tests the whole system: its
generator makes as many frames as it can, and sessions take turns. The response time of the uplink is then
motion-to-packet.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGTERM

import click
from load import machine, scrape
from load.figures import Spread, markdown
from load.inbox import InboxOrder, InboxReport
from load.run import numbers
from load.system import UNLIMITED, pids_of
from load.users import PACKETS_PER_S, UsersOrder, UsersReport
from load.workers import Worker, worker
from pydantic import BaseModel

from mien_client.launcher import Stack, StackOptions
from mien_shared.bus.embedded_redis import EmbeddedRedis

MEAN_RESPONSE_MS = 100.0
#: If the clients send less than this share of the packets that are due, they are the bottleneck themselves.
_CLIENTS_KEEP_UP = 0.95
_USERS_A_PROCESS = 500


class StressLevel(BaseModel):
    """The results with this many users. `sent` and `delivered` are shares of the packets that were due.

    sent: sent by the clients. delivered: read from the inbox; under load it is lower, because the newest packet wins.
    dropped: packets that the gateway dropped, by reason.
    """

    users: int
    consumer: str
    seconds: float
    load_average: float
    rest_ms: Spread
    create_ms: Spread
    uplink_ms: Spread
    received_to_inbox_ms: Spread
    calls_per_s: float
    packets_per_s: float
    sent: float
    delivered: float
    dropped: dict[str, int]
    errors: dict[str, int]
    usage: dict[str, machine.Usage]

    @property
    def passed(self) -> bool:
        """Whether mean response times are under 100 ms, no error occurred, and the clients kept up."""
        # Motion-to-packet comes from a histogram, which has no exact mean; its median stands in.
        uplink_ms = self.uplink_ms.p50 if self.uplink_ms.mean is None else self.uplink_ms.mean
        means = (self.rest_ms.mean, uplink_ms)
        in_time = all(mean is not None and mean < MEAN_RESPONSE_MS for mean in means)
        return in_time and not self.errors and self.sent >= _CLIENTS_KEEP_UP


async def measure(users: int, consumer: str, think_s: float, settle_s: float, seconds: float) -> StressLevel:
    """Start a new system, put one level of load on it, measure it, and stop it."""
    async with AsyncExitStack() as contexts:
        redis = contexts.enter_context(EmbeddedRedis())
        options = StackOptions(gateway_port=0, signaling_port=0, redis_url=redis.url, generator_env=UNLIMITED)
        stack = await contexts.enter_async_context(Stack(options))
        inbox: Worker | None = None
        if consumer == "inbox":
            await stack.kill("generator", SIGTERM)
            inbox = await contexts.enter_async_context(worker("load.inbox", redis.url, str(users)))
            await inbox.ask(InboxOrder(kind="begin"), InboxReport)
        count = math.ceil(users / _USERS_A_PROCESS)
        crowds = [await contexts.enter_async_context(worker("load.users", stack.url)) for _ in range(count)]
        shares = [users // count + (number < users % count) for number in range(count)]

        pids = await pids_of(stack, redis.url)
        pids |= {f"clients {number}": crowd.pid for number, crowd in enumerate(crowds, 1)}
        if inbox:
            pids["inbox reader"] = inbox.pid
        joined = await _all(crowds, [UsersOrder(kind="raise", users=share, think_s=think_s) for share in shares])
        await asyncio.sleep(settle_s)
        gateway, generator = [stack.service_url("gateway")], [stack.service_url("generator")]
        waited = await scrape.histogram(generator, "mien_motion_to_packet_seconds") if inbox is None else Counter()
        dropped = await _dropped(gateway)
        if inbox:
            await inbox.ask(InboxOrder(kind="begin"), InboxReport)
        await _all(crowds, [UsersOrder(kind="begin")] * count)
        before = machine.snapshot(pids, time.monotonic())
        await asyncio.sleep(seconds)
        used = machine.usage(before, pids, time.monotonic())
        reports = await _all(crowds, [UsersOrder(kind="report")] * count)
        elapsed_s = time.monotonic() - before.at_s
        read = await inbox.ask(InboxOrder(kind="report"), InboxReport) if inbox else None
        dropped = await _dropped(gateway) - dropped
        if read:
            uplink_ms = Spread.of(read.sent_to_inbox_ms)
            packets = read.packets
        else:
            uplink_ms = scrape.spread(waited, await scrape.histogram(generator, "mien_motion_to_packet_seconds"))
            packets = uplink_ms.count
    return _level(users, consumer, elapsed_s, (joined, reports), (uplink_ms, packets), read, dropped, used)


def _level(
    users: int,
    consumer: str,
    seconds: float,
    told: tuple[Sequence[UsersReport], Sequence[UsersReport]],
    arrived: tuple[Spread, int],
    read: InboxReport | None,
    dropped: Counter[str],
    used: dict[str, machine.Usage],
) -> StressLevel:
    joined, reports = told
    errors = sum((Counter(report.errors) for report in (*joined, *reports)), Counter[str]())
    if read and read.lost_leases:
        errors["leases lost"] = read.lost_leases
    if read and read.unknown:
        errors["packets of unknown sessions"] = read.unknown
    rest_ms = [
        ms for report in reports for name, many in report.responses_ms.items() if name != "create" for ms in many
    ]
    due = users * PACKETS_PER_S * seconds
    return StressLevel(
        users=sum(report.users for report in reports),
        consumer=consumer,
        seconds=round(seconds, 2),
        load_average=machine.load_average(),
        rest_ms=Spread.of(rest_ms),
        create_ms=Spread.of([ms for report in joined for ms in report.responses_ms.get("create", [])]),
        uplink_ms=arrived[0],
        received_to_inbox_ms=Spread.of(read.received_to_inbox_ms if read else []),
        calls_per_s=round(len(rest_ms) / seconds, 1),
        packets_per_s=round(sum(report.sent for report in reports) / seconds, 1),
        sent=round(sum(report.sent for report in reports) / due, 3),
        delivered=round(arrived[1] / due, 3),
        dropped=dict(+dropped),
        errors=dict(errors),
        usage=used,
    )


async def _all(crowds: Sequence[Worker], orders: Sequence[UsersOrder]) -> list[UsersReport]:
    asked = (crowd.ask(order, UsersReport) for crowd, order in zip(crowds, orders, strict=True))
    return list(await asyncio.gather(*asked))


async def _dropped(gateway: Sequence[str]) -> Counter[str]:
    """Packets that the gateway rejected, or accepted but did not forward."""
    verdicts = await scrape.counter(gateway, "mien_uplink_packets_total", "result")
    del verdicts["accepted"]
    return verdicts + await scrape.counter(gateway, "mien_motion_forward_dropped_total", "reason")


def table(levels: Sequence[StressLevel]) -> str:
    """The levels as a Markdown table."""
    head = ["users", "REST mean/p50/p95/p99 ms", "uplink mean/p50/p95/p99 ms", "calls/s", "packets/s"]
    head += ["delivered", "dropped", "errors"]
    services = sorted({name for level in levels for name in level.usage if not name.startswith("clients")})
    head += [*(f"{name} cores (MiB)" for name in services), "clients cores", "load average", "passed"]
    rows = []
    for level in levels:
        clients = sum(used.cores for name, used in level.usage.items() if name.startswith("clients"))
        rows.append(
            [
                str(level.users),
                _four(level.rest_ms),
                _four(level.uplink_ms),
                f"{level.calls_per_s:.0f}",
                f"{level.packets_per_s:.0f}",
                f"{level.delivered:.1%}",
                ", ".join(f"{count} {name}" for name, count in level.dropped.items()) or "none",
                ", ".join(f"{count} {name}" for name, count in level.errors.items()) or "none",
                *(
                    f"{used.cores:.2f} ({used.rss_mib:.0f})" if (used := level.usage.get(name)) else "-"
                    for name in services
                ),
                f"{clients:.2f}",
                f"{level.load_average:.1f}",
                "yes" if level.passed else "no",
            ]
        )
    return markdown(head, rows)


def _four(spread: Spread) -> str:
    values = (spread.mean, spread.p50, spread.p95, spread.p99)
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


async def run(
    users: Sequence[int], consumer: str, think_s: float, settle_s: float, seconds: float
) -> list[StressLevel]:
    """Measure all levels, one after another."""
    levels = []
    for count in users:
        levels.append(await measure(count, consumer, think_s, settle_s, seconds))
        click.echo(table(levels[-1:]).splitlines()[-1], err=True)
    return levels


@click.command()
@click.option(
    "--users", default="200", show_default=True, help="Levels of load: numbers of users, separated by commas."
)
@click.option(
    "--consumer",
    type=click.Choice(["inbox", "generator"]),
    default="inbox",
    show_default=True,
    help="Consumer of the motion: an inbox that makes no faces, or a real generator.",
)
@click.option("--think", default=1.0, show_default=True, help="Mean seconds between two calls of a user.")
@click.option("--seconds", default=10.0, show_default=True, help="Seconds to measure each level.")
@click.option("--settle", default=2.0, show_default=True, help="Seconds to wait before each measurement.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("var/load"),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the levels as JSON lines instead of a table.")
def main(users: str, consumer: str, think: float, seconds: float, settle: float, out: Path, as_json: bool) -> None:
    """Measure response times of many users at once. Writes OUT/stress-CONSUMER.jsonl.

    The exit status is 0 if the first level passes, otherwise 1.
    """
    levels = asyncio.run(run(numbers(users), consumer, think, settle, seconds))
    lines = "".join(level.model_dump_json() + "\n" for level in levels)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"stress-{consumer}.jsonl").write_text(lines)
    click.echo(lines if as_json else f"{machine.describe()}\n\n{table(levels)}")
    sys.exit(not levels[0].passed)


if __name__ == "__main__":
    main()
