"""Copies to the device and back without waiting: pinned memory, and a separate stream for downloads.

Pinned blocks come from torch's host allocator. It reuses a block only after the copies that read or write it have
ended, so a block is never overwritten while it is in use.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """A started copy of bytes to the host."""

    host: torch.Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> NDArray[np.uint8]:
        """Wait for the bytes. They stay valid as long as the array or a view of it exists."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: NDArray[np.uint8] = self.host.numpy()
        return values


class Lane:
    """The streams of a device: one computes, another one downloads. On a CPU everything runs in program order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_cuda = device.type == "cuda"
        if self._is_cuda:
            self._compute, self._copy = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def computing(self) -> AbstractContextManager[object]:
        """A context for the compute stream: work launched in it runs in the order of the launches."""
        return torch.cuda.stream(self._compute) if self._is_cuda else nullcontext()

    def upload(self, values: torch.Tensor, to: torch.Tensor) -> None:
        """Copy a host tensor to a device tensor. The caller may drop or change `values` afterwards."""
        to.copy_(values.pin_memory() if self._is_cuda else values, non_blocking=True)

    def download(self, values: torch.Tensor) -> Download:
        """Start to copy (n,) uint8 to the host, after earlier work and in parallel with later work."""
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
