"""Keeps the sources of all avatars in one tensor on the device, so that a batch across avatars is one gather."""

from __future__ import annotations

import torch

_FIRST_ROWS = 8


class BankFull(RuntimeError):
    """There is no room for another source: the bank's limit is reached, or the device's memory is full."""


class SourceBank:
    """Rows of equal length, one for each source. A full bank doubles its size; it never shrinks.

    Growing copies all rows to a new tensor, so callers must not keep a view over a call to `take`. Any thread may call
    `give_back`; only the device's owner thread may call the other methods.
    """

    def __init__(self, numbers: int, dtype: torch.dtype, device: torch.device, limit: int) -> None:
        """numbers: length of a row. limit: largest number of rows."""
        self.limit = limit
        self._rows = torch.empty(0, numbers, dtype=dtype, device=device)
        self._free: list[int] = []

    @property
    def in_use(self) -> int:
        """Number of rows in use."""
        return len(self._rows) - len(self._free)

    @property
    def bytes_per_source(self) -> int:
        """Memory of one row."""
        return self._rows.shape[1] * self._rows.element_size()

    def take(self) -> int:
        """Reserve a row and return its index; raises BankFull."""
        if not self._free:
            self._grow()
        return self._free.pop()

    def give_back(self, index: int) -> None:
        """Free a row. Work that is already launched can still read it, because new writes are launched later."""
        if index < len(self._rows):  # otherwise the bank was cleared meanwhile
            self._free.append(index)

    def row(self, index: int) -> torch.Tensor:
        """A row as a view, (1, numbers), to write a source to."""
        return self._rows[index : index + 1]

    def gather(self, indices: torch.Tensor, out: torch.Tensor) -> None:
        """Copy rows to `out`, (B, numbers). indices: (B,) int64 on the device."""
        torch.index_select(self._rows, 0, indices, out=out)

    def clear(self) -> None:
        """Free all memory. All rows are lost, and `take` fails from now on."""
        self.limit = 0
        self._rows = self._rows.new_empty(0, self._rows.shape[1])
        self._free.clear()

    def _grow(self) -> None:
        held = len(self._rows)
        count = min(max(_FIRST_ROWS, 2 * held), self.limit)
        if count <= held:
            raise BankFull(f"the device has {held} avatars, which is its limit")
        try:
            grown = self._rows.new_empty(count, self._rows.shape[1])
        except torch.OutOfMemoryError as error:
            raise BankFull(f"the device's memory is too small for more than {held} avatars") from error
        grown[:held] = self._rows
        self._rows = grown
        self._free.extend(range(count - 1, held - 1, -1))
