"""How many sessions a machine holds, from what it was measured to do. Pure.

Admission counts on the last resort: every session may be stepped down, to the last tier if need be, before anyone is
refused. So a generator is full when one more session would cost all of them their frame rate whatever was done.
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_generator.cost import BatchCost

#: Of the cores' time. The rest is for the event loop and Redis, and is lost where threads wait for the interpreter: on
#: two cores seven warped sessions hold (docs/latency.md), which is what this share says of them.
_CORES_SHARE = 0.55
#: Of the device's time.
_DEVICE_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured, with nothing else running.

    device: cost of a batch on each of the device's tiers, the best first; empty without a device. warp_s: seconds of
    one core for a face of the last tier. finish_s: seconds of one core for composing and encoding one frame.
    """

    device: tuple[BatchCost, ...]
    warp_s: float
    finish_s: float


def capacity(speed: Speed, cores: float, shares_cores: bool, fps: int, floor_fps: float, batch: int) -> int:
    """Sessions that hold: `fps` frames a second on the last tier, `floor_fps` at least on the device's.

    shares_cores: the device is the CPU itself, and a face on it costs all cores. batch: faces in one run of the device.
    At least 1: a machine that is too slow for even one shows what it can.
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
