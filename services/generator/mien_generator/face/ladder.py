"""The tiers of a generator, the best first: which face generator makes each, and on whose time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mien_generator.face.contract import FaceGenerator, Overlapping


@dataclass(frozen=True, slots=True)
class Rung:
    """One tier.

    name: as statistics and metrics show it, such as onnx-384. on_device: its faces are made in batches on the device's
    owner thread; otherwise one by one on the pool's threads, several at once, and they need nothing of the device.
    """

    name: str
    generator: FaceGenerator[Any]
    on_device: bool


@dataclass(frozen=True, slots=True)
class Ladder:
    """rungs: the best first; the last needs no device, and no other does without.

    device, model: what runs and where, as what is remembered of their speed is filed. shares_cores: the device is the
    CPU that also composes and encodes.
    """

    rungs: tuple[Rung, ...]
    device: str = "none"
    model: str = "none"
    shares_cores: bool = True

    def __post_init__(self) -> None:
        if not self.rungs or any(rung.on_device != (tier < self.last) for tier, rung in enumerate(self.rungs)):
            raise ValueError("the last rung of a ladder, and no other, needs no device")

    @property
    def last(self) -> int:
        """The tier that anyone can be drawn on."""
        return len(self.rungs) - 1

    def overlapping(self, tier: int) -> Overlapping | None:
        """The tier's generator if its batches may overlap: on a device of its own, which needs nobody's cores."""
        generator = self.rungs[tier].generator
        return generator if not self.shares_cores and isinstance(generator, Overlapping) else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(rung.name for rung in self.rungs)
