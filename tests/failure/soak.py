"""A soak test with churn: memory must not grow.

    python tests/failure/soak.py --minutes 20 [--json FILE]

One call with a viewer continues all the time while other clients connect and abort as in churn.py. The first quarter of
the time is warm-up. Of the rest, the test compares the mean resident memory of each service in the first fifth with
that in the last fifth. If the memory of any service grows by more than 5 %, the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.system import System
from failure.churn import CHURN_ENV, Churn, facts, held, rss_bytes
from failure.eye import fps, longest_gap_s, watching
from failure.stacks import bundled_face
from processes import descendants

from mien_client.launcher import Stack, StackOptions
from mien_shared.bus.embedded_redis import EmbeddedRedis

_SAMPLE_S = 5.0
_LIMIT = 0.05


async def soak(minutes: float) -> dict[str, object]:
    """Run the soak test and return its report."""
    with EmbeddedRedis() as redis:
        options = StackOptions(gateway_port=0, signaling_port=0, redis_url=redis.url, generator_env=CHURN_ENV)
        async with Stack(options) as stack:
            system = System(stack, redis)
            async with (
                system.call() as call,
                Churn(system) as churn,
                watching(call.session, await bundled_face(system)) as eye,
            ):
                began_s = time.monotonic()
                end_s = began_s + minutes * 60
                samples: list[tuple[float, dict[str, int]]] = []
                cycles = 0
                async with asyncio.TaskGroup() as group:
                    group.create_task(_sample(system, samples, end_s))
                    while time.monotonic() < end_s:
                        await churn.run(len(churn.kinds), at_once=3)
                        cycles += len(churn.kinds)
                        del eye.sights[:-1000]
                        await asyncio.sleep(3)  # leaves half of the machine to the viewer
                report = _judge(samples, began_s + minutes * 60 / 4)
                holds = {name: vars_of.tasks for name, vars_of in (await held(system)).items()}
                return report | {
                    "minutes": minutes,
                    "cycles": cycles,
                    "refused": churn.refused,
                    "ended": stack.ended(),
                    "viewer_connected": eye.is_connected,
                    "viewer_fps": round(fps(eye.sights), 1),
                    "viewer_longest_gap_s": round(longest_gap_s(eye.sights), 2),
                    "tasks": holds,
                    "facts": await facts(system),
                }


async def _sample(system: System, samples: list[tuple[float, dict[str, int]]], end_s: float) -> None:
    while time.monotonic() < end_s:
        names = system.stack.services
        pids = {name: system.stack.pid(name) for name in names}
        families = {name: [pid, *descendants(pid)] for name, pid in pids.items()}
        samples.append((time.monotonic(), {name: sum(map(rss_bytes, family)) for name, family in families.items()}))
        await asyncio.sleep(_SAMPLE_S)


def _judge(samples: list[tuple[float, dict[str, int]]], warm_s: float) -> dict[str, object]:
    """The growth of each service's memory, as a share of its memory after the warm-up."""
    warm = [memory for at_s, memory in samples if at_s >= warm_s]
    part = max(1, len(warm) // 5)
    services = {}
    for name in warm[0]:
        first = fmean(memory[name] for memory in warm[:part])
        last = fmean(memory[name] for memory in warm[-part:])
        services[name] = {
            "mib_after_warm_up": round(first / 2**20, 1),
            "mib_at_the_end": round(last / 2**20, 1),
            "growth": round(last / first - 1, 4),
            "mib_each_minute": [
                round(fmean(memory[name] for memory in samples_of) / 2**20, 1) for samples_of in _minutes(samples)
            ],
        }
    flat = all(service["growth"] <= _LIMIT for service in services.values())  # type: ignore[operator]
    return {"memory_is_flat": flat, "services": services}


def _minutes(samples: list[tuple[float, dict[str, int]]]) -> list[list[dict[str, int]]]:
    minutes: dict[int, list[dict[str, int]]] = {}
    for at_s, memory in samples:
        minutes.setdefault(int((at_s - samples[0][0]) // 60), []).append(memory)
    return list(minutes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="Minutes to run. Default: 20.")
    parser.add_argument("--json", type=Path, help="Also write the report to this file.")
    arguments = parser.parse_args()
    report = asyncio.run(soak(arguments.minutes))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")
    sys.exit(0 if report["memory_is_flat"] and not report["ended"] and report["viewer_connected"] else 1)


if __name__ == "__main__":
    main()
