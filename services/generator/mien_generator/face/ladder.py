"""The tiers of a generator, the best first: the face generator of each, and whether it runs on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mien_generator.face.contract import FaceGenerator, Overlapping


@dataclass(frozen=True, slots=True)
class Rung:
    """One tier.

    name: its name in statistics and metrics, such as onnx-384. on_device: True if the device thread makes its faces in
    batches. Otherwise the pool's threads make them one by one, several at the same time, without the device.
    """

    name: str
    generator: FaceGenerator[Any]
    on_device: bool


@dataclass(frozen=True, slots=True)
class Ladder:
    """All tiers of one kind of avatar.

    rungs: the tiers, the best first; only the last tier runs without a device. device, model: cache key for the
    measured speed. shares_cores: the device is the CPU, which also composes and encodes.
    """

    rungs: tuple[Rung, ...]
    device: str = "none"
    model: str = "none"
    shares_cores: bool = True

    def __post_init__(self) -> None:
        if not self.rungs or any(rung.on_device != (tier < self.last) for tier, rung in enumerate(self.rungs)):
            raise ValueError("the last rung of a ladder must run without a device, and all others on one")

    @property
    def last(self) -> int:
        """The number of the last tier, on which any session can be drawn."""
        return len(self.rungs) - 1

    def overlapping(self, tier: int) -> Overlapping | None:
        """The tier's generator if its batches may overlap: the device must not share cores with the pool."""
        generator = self.rungs[tier].generator
        return generator if not self.shares_cores and isinstance(generator, Overlapping) else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(rung.name for rung in self.rungs)


@dataclass(frozen=True, slots=True)
class Tiers:
    """What an engine knows of a ladder: the device's tiers by name, and what draws the last tier.

    names, backends: of each tier, the best first. last_generator: makes the faces of the last tier, in this process.
    """

    names: tuple[str, ...]
    backends: tuple[str, ...]
    last_generator: FaceGenerator[Any]

    @classmethod
    def of(cls, ladder: Ladder) -> Tiers:
        return cls(ladder.names, tuple(rung.generator.name for rung in ladder.rungs), ladder.rungs[-1].generator)

    @property
    def last(self) -> int:
        """The number of the last tier, on which any session can be drawn."""
        return len(self.names) - 1
