"""Applies the policy of the tiers to all sessions of a generator, with the device's present speed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mien_generator.cost import BatchCost, largest_batches
from mien_generator.engine.tiers import SessionLoad, Step, TierPolicy


class Balancer:
    """Decides on which tier each session is drawn."""

    def __init__(
        self, costs: Mapping[int, BatchCost], *, fps: int, floor_fps: float, max_batch: int, shares_cores: bool
    ) -> None:
        """costs: batch costs of each device tier, measured without other load. shares_cores: the device is the CPU."""
        most = largest_batches(costs, fps, max_batch)
        self._face_s = [costs[tier].of(most[tier]) / most[tier] for tier in sorted(costs)]
        self._fps = fps
        self._policy = TierPolicy(floor_fps, shares_cores)

    def steps(self, now_s: float, loads: Sequence[SessionLoad], load_factor: float | None) -> list[Step]:
        """The steps to take now. loads: of all sessions, the oldest first. load_factor: None without a device."""
        if load_factor is None:
            return []
        return self._policy.decide(now_s, loads, self._costs(load_factor))

    def first_tier(self, loads: Sequence[SessionLoad], load_factor: float | None) -> int:
        """The tier on which a new session begins."""
        if load_factor is None:
            return len(self._face_s)
        return self._policy.first_tier(loads, self._costs(load_factor), self._fps)

    def _costs(self, load_factor: float) -> list[float]:
        """Seconds of device time per face on each tier under the present load, in the largest allowed batches."""
        return [*(cost_s * load_factor for cost_s in self._face_s), 0.0]
