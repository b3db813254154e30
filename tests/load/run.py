"""`make load`: add speakers and viewers until the system no longer holds the frame rate or the latency.

Everything is real: the services run in their processes on an embedded Redis; every speaker has a session with an uplink
of the SDK and the demo's recorded motion; every viewer is a WebRTC peer. Speakers and viewers run in two separate
processes. A level holds if no client is refused, nothing is lost, the median viewer gets at least 28.5 frames per
second, and the 99th percentile of motion-to-packet is at most 100 ms. The knee is the last level before the first that
does not hold.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
from load import machine, picture, scrape
from load.figures import Level, Spread, cost_of_one_more, knee, table
from load.speakers import SpeakersOrder, SpeakersReport
from load.system import UNLIMITED, pids_of
from load.viewers import ViewersOrder, ViewersReport
from load.workers import Worker, worker
from pydantic import BaseModel

from mien_client.launcher import Stack, StackOptions
from mien_shared.bus.embedded_redis import EmbeddedRedis

_SERVICES = ("gateway", "generator", "signaling", "redis")
_MOTION_TO_PACKET = "mien_motion_to_packet_seconds"


class Run(BaseModel):
    """The report of a whole run. engine: the generators' face backend."""

    machine: str
    engine: str
    levels: list[Level]
    held_speakers: int | None
    held_viewers: int | None
    cores_per_speaker: dict[str, float | None]
    cores_per_viewer: dict[str, float | None]


@dataclass(frozen=True)
class Bench:
    """The running system and its load clients."""

    stack: Stack
    speakers: Worker
    viewers: Worker
    pids: dict[str, int]
    watched: Counter[str] = field(default_factory=Counter)  # viewers asked for so far, by session

    async def measure(self, speakers: int, viewers_each: int, settle_s: float, seconds: float) -> Level:
        """Add speakers and viewers up to this level, wait `settle_s`, and measure for `seconds`."""
        sessions = (await self._speakers(SpeakersOrder(kind="raise", speakers=speakers))).sessions
        missing = [one for one in sessions for _ in range(viewers_each - self.watched[one.session_id])]
        self.watched.update(one.session_id for one in missing)
        await self._viewers(ViewersOrder(kind="watch", sessions=missing))
        await asyncio.sleep(settle_s)

        generators = [self.stack.service_url(name) for name in self.stack.services if name.startswith("generator")]
        waited = await scrape.histogram(generators, _MOTION_TO_PACKET)
        await self._speakers(SpeakersOrder(kind="begin"))
        await self._viewers(ViewersOrder(kind="begin"))
        before = machine.snapshot(self.pids, time.monotonic())
        await asyncio.sleep(seconds)
        used = machine.usage(before, self.pids, time.monotonic())
        seen = await self._viewers(ViewersOrder(kind="report"))
        elapsed_s = time.monotonic() - before.at_s
        spoken = await self._speakers(SpeakersOrder(kind="report"))
        return _level(
            spoken, seen, elapsed_s, used, scrape.spread(waited, await scrape.histogram(generators, _MOTION_TO_PACKET))
        )

    async def _speakers(self, order: SpeakersOrder) -> SpeakersReport:
        return await self.speakers.ask(order, SpeakersReport)

    async def _viewers(self, order: ViewersOrder) -> ViewersReport:
        return await self.viewers.ask(order, ViewersReport)


def _level(
    spoken: SpeakersReport,
    seen: ViewersReport,
    seconds: float,
    used: dict[str, machine.Usage],
    motion_to_packet_ms: Spread,
) -> Level:
    rates = sorted(frames / seconds for frames in seen.frames) or [0.0]
    return Level(
        speakers=len(spoken.sessions),
        viewers=len(seen.frames),
        seconds=round(seconds, 2),
        load_average=machine.load_average(),
        motion_to_packet_ms=motion_to_packet_ms,
        capture_to_receiver_ms=Spread.of(seen.latencies_ms),
        fps_min=round(rates[0], 2),
        fps_median=round(rates[len(rates) // 2], 2),
        stalled_frames=seen.stalled_frames,
        errors={
            "uplinks closed": spoken.closed,
            "uplinks reconnected": spoken.reconnects,
            "viewers without a picture": seen.failed,
            "viewers lost": seen.lost,
            "frames broken": seen.broken_frames,
        },
        refused={
            f"{who} refused ({code})": count
            for who, refused in (("speakers", spoken.refused), ("viewers", seen.refused))
            for code, count in refused.items()
        },
        uplink_kbit_s=round(spoken.sent_bytes * 8 / 1000 / seconds, 1),
        downlink_kbit_s=round(seen.received_bytes * 8 / 1000 / seconds, 1),
        usage=used,
    )


async def run(
    levels: Sequence[tuple[int, int]], settle_s: float, seconds: float, engine: str, generators: int, beyond: int
) -> Run:
    """Measure levels of (speakers, viewers of each speaker) until `beyond` levels in a row do not hold."""
    measured: list[Level] = []
    async with AsyncExitStack() as contexts:
        redis_server = contexts.enter_context(EmbeddedRedis())
        environment = UNLIMITED | {"MIEN_FACE_BACKEND": engine}
        options = StackOptions(
            gateway_port=0,
            signaling_port=0,
            redis_url=redis_server.url,
            generators=generators,
            generator_env=environment,
        )
        stack = await contexts.enter_async_context(Stack(options))
        speakers = await contexts.enter_async_context(worker("load.speakers", stack.url))
        viewers = await contexts.enter_async_context(worker("load.viewers"))
        clients = {"clients (speakers)": speakers.pid, "clients (viewers)": viewers.pid}
        bench = Bench(stack, speakers, viewers, await pids_of(stack, redis_server.url) | clients)
        for count, viewers_each in levels:
            level = await bench.measure(count, viewers_each, settle_s, seconds)
            measured.append(level)
            click.echo(table([level]).splitlines()[-1], err=True)
            if len(measured) >= beyond and not any(level.holds for level in measured[-beyond:]):
                break
    held = knee(measured)
    return Run(
        machine=machine.describe(),
        engine=engine,
        levels=measured,
        held_speakers=held.speakers if held else None,
        held_viewers=held.viewers if held else None,
        cores_per_speaker=_costs(measured, "speakers"),
        cores_per_viewer=_costs(measured, "viewers"),
    )


def _costs(levels: Sequence[Level], of: str) -> dict[str, float | None]:
    return {
        service: cost_of_one_more(levels, service, of) for service in ("gateway", "generator", "signaling", "redis")
    }


def numbers(text: str) -> list[int]:
    """Parse an option with numbers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers separated by commas") from error


@click.command()
@click.option(
    "--speakers",
    default="1,2,4,6,8,10,12,14,16,20,24",
    show_default=True,
    help="Levels of load: numbers of speakers, separated by commas.",
)
@click.option(
    "--viewers",
    default="1",
    show_default=True,
    help="Numbers of viewers of each speaker, separated by commas. Each combination with --speakers is a level.",
)
@click.option("--seconds", default=8.0, show_default=True, help="Seconds to measure each level.")
@click.option("--settle", default=2.0, show_default=True, help="Seconds to wait before each measurement.")
@click.option("--engine", default="warp", show_default=True, help="Face backend of the generators.")
@click.option("--generators", default=1, show_default=True, help="Number of generator processes.")
@click.option("--beyond", default=2, show_default=True, help="Stop after this many levels in a row do not hold.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("var/load"),
    show_default=True,
    help="Folder for run.json and run.png.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
def main(
    speakers: str,
    viewers: str,
    seconds: float,
    settle: float,
    engine: str,
    generators: int,
    beyond: int,
    out: Path,
    as_json: bool,
) -> None:
    """Raise the load until levels no longer hold. Writes OUT/run.json and OUT/run.png."""
    levels = list(itertools.product(numbers(speakers), numbers(viewers)))
    result = asyncio.run(run(levels, settle, seconds, engine, generators, beyond))
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(result.model_dump_json(indent=1) + "\n")
    title = f"{result.machine}; {engine}; {generators} generator{'s' if generators > 1 else ''}; {seconds:g} s a level"
    picture.draw(result.levels, title, out / "run.png")
    click.echo(result.model_dump_json() if as_json else table(result.levels))
    click.echo(f"holds up to {result.held_speakers} speakers, {result.held_viewers} viewers", err=True)
    click.echo(f"cores per speaker: {result.cores_per_speaker}; cores per viewer: {result.cores_per_viewer}", err=True)


if __name__ == "__main__":
    sys.exit(main())
