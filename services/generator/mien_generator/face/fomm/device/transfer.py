"""To the device and back without waiting: pinned memory, and a stream of its own for what comes back.

Pinned blocks come from torch's host allocator, which gives one out again only after the copies that read or wrote it
have ended: nothing here is overwritten while somebody still holds it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """Bytes on their way to the host."""

    host: torch.Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> NDArray[np.uint8]:
        """The bytes, once they are there; they stay valid as long as anyone holds the array or a view of it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: NDArray[np.uint8] = self.host.numpy()
        return values


class Lane:
    """The order of work on a device: computing in one stream, copying back in another. On a CPU, simply the order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_cuda = device.type == "cuda"
        if self._is_cuda:
            self._compute, self._copy = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def computing(self) -> AbstractContextManager[object]:
        """What is launched within runs after all that was launched before it."""
        return torch.cuda.stream(self._compute) if self._is_cuda else nullcontext()

    def upload(self, values: torch.Tensor, to: torch.Tensor) -> None:
        """Copy a host tensor into one on the device; `values` may be dropped or changed afterwards."""
        to.copy_(values.pin_memory() if self._is_cuda else values, non_blocking=True)

    def download(self, values: torch.Tensor) -> Download:
        """Start to copy (n,) uint8 to the host, after what was launched so far, beside what comes next."""
        if not self._is_cuda:
            return Download(values, None)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        computed, arrived = torch.cuda.Event(), torch.cuda.Event()
        computed.record(self._compute)
        with torch.cuda.stream(self._copy):
            self._copy.wait_event(computed)
            host.copy_(values, non_blocking=True)
            arrived.record(self._copy)
        values.record_stream(self._copy)
        return Download(host, arrived)
