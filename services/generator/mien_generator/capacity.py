"""Computes how many sessions a machine can hold from its measured speed. Pure.

Before the generator refuses a session, it can move all sessions down, even to the last tier. So it is full only when
one more session would lower the frame rate of all sessions, on whichever tiers they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_generator.cost import BatchCost

#: Usable share of the cores' time. The event loop and Redis take part of the rest, and threads that wait for the Python
#: interpreter lose part of it. With this share two cores hold seven warped sessions, as measured (docs/latency.md).
_CORES_SHARE = 0.55
#: Usable share of the device's time.
_DEVICE_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Speed:
    """The measured speed of a machine without other load.

    device: cost of a batch on each of the device's tiers, the best first; empty without a device. warp_s: seconds of
    one core for a face of the last tier. finish_s: seconds of one core to compose and encode one frame.
    """

    device: tuple[BatchCost, ...]
    warp_s: float
    finish_s: float


def capacity(speed: Speed, cores: float, shares_cores: bool, fps: int, floor_fps: float, batch: int) -> int:
    """The number of sessions for which the machine keeps `fps` on the last tier and `floor_fps` on the device's tiers.

    shares_cores: the device is the CPU itself, and a face on it uses all cores. batch: faces in one run of the device.
    The result is at least 1, also for a machine that is too slow for one session.
    """
    budget = cores * _CORES_SHARE
    warped = (speed.warp_s + speed.finish_s) * fps
    on_device = 0
    if speed.device and not shares_cores:
        face_s = min(cost.of(batch) / batch for cost in speed.device)
        on_device = int(budget / (speed.finish_s * fps))
        if floor_fps > 0:
            on_device = min(on_device, int(_DEVICE_SHARE / (face_s * floor_fps)))
        budget -= on_device * speed.finish_s * fps
    return max(1, on_device + int(budget / warped))
