"""Which devices torch reaches here, and what can be wrong with one."""

from __future__ import annotations

import torch


class DeviceError(RuntimeError):
    """A device that cannot do what is asked of it; the text says why."""


class DeviceMissing(DeviceError):
    """A device that torch does not know or cannot reach."""


class DeviceFull(DeviceError):
    """A device whose memory does not hold the network and its largest batch."""


def reachable(name: str | torch.device) -> torch.device:
    """The device of that name; raises DeviceMissing."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissing(f"torch knows no device {str(name)!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceMissing(f"device {str(name)!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
