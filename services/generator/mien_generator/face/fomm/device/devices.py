"""Finds devices that torch can use, and defines their errors."""

from __future__ import annotations

import torch


class DeviceError(RuntimeError):
    """A device cannot be used; the text says why."""


class DeviceMissing(DeviceError):
    """The device does not exist, or torch cannot use it."""


class DeviceFull(DeviceError):
    """The device's memory is too small for the network and its largest batch."""


def reachable(name: str | torch.device) -> torch.device:
    """The device with this name; raises DeviceMissing."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceMissing(f"torch does not know the device {str(name)!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceMissing(f"there is no device {str(name)!r}: torch finds {torch.cuda.device_count()} CUDA devices")
    return device
