"""An engine with its device in this process, balanced as the host balances its workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from mien_generator.cost import BatchCost
from mien_generator.device.thread import DeviceThread
from mien_generator.engine.balance import Balancer
from mien_generator.engine.engine import Engine
from mien_generator.engine.pipeline import Pipeline
from mien_generator.face.ladder import Ladder, Tiers
from mien_generator.metrics import GeneratorMetrics
from mien_shared.bus.messages import EncodedFrame
from mien_shared.clock import SystemClock


class BalancedEngine(Engine):
    """An engine whose `balance` does what the host does for its workers."""

    device: DeviceThread | None = None
    balancer: Balancer

    def balance(self) -> None:
        factor = self.device.load_factor if self.device is not None and self.device.failure is None else None
        for step in self.balancer.steps(SystemClock().monotonic_s(), self.loads(), factor):
            self.step(step.session_id, step.tier)
        self.first_tier = self.balancer.first_tier(self.loads(), factor)


@asynccontextmanager
async def running_engine(
    ladder: Ladder,
    costs: Mapping[int, BatchCost],
    publish: Callable[[str, EncodedFrame], None],
    metrics: GeneratorMetrics,
    *,
    threads: int = 2,
    max_batch: int = 8,
) -> AsyncIterator[BalancedEngine]:
    """The engine, running; without a device if the ladder has only the last tier."""
    clock, tiers = SystemClock(), Tiers.of(ladder)
    metrics.generates_with(ladder.names, "libx264")
    engine = BalancedEngine(tiers, Pipeline(tiers, clock, metrics, publish), clock, metrics, fps=30, threads=threads)
    engine.balancer = Balancer(costs, fps=30, floor_fps=15, max_batch=max_batch, shares_cores=ladder.shares_cores)
    if ladder.last > 0:
        engine.device = DeviceThread(ladder, costs, clock, metrics, fps=30, max_batch=max_batch)
        engine.use(engine.device.client(engine))
        engine.device.start()
    engine.first_tier = 0
    engine.start()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        if engine.device is not None:
            await asyncio.to_thread(engine.device.close)
