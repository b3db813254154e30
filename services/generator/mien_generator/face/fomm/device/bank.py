"""The sources of all avatars in one tensor on the device, so that a batch across avatars is gathered by index."""

from __future__ import annotations

import torch

_FIRST_ROWS = 8


class BankFull(RuntimeError):
    """No room for another source: the bank's limit is reached, or the device's memory."""


class SourceBank:
    """Rows of equal length, one for each source; it doubles as it fills and never shrinks.

    Growing copies it to another place: nobody keeps a view of it over a call to `take`. `give_back` may be called
    from any thread, all else belongs to the device's owner thread.
    """

    def __init__(self, numbers: int, dtype: torch.dtype, device: torch.device, limit: int) -> None:
        """numbers: in a row. limit: rows at most."""
        self.limit = limit
        self._rows = torch.empty(0, numbers, dtype=dtype, device=device)
        self._free: list[int] = []

    @property
    def in_use(self) -> int:
        """Rows taken."""
        return len(self._rows) - len(self._free)

    @property
    def bytes_per_source(self) -> int:
        """Memory of one row."""
        return self._rows.shape[1] * self._rows.element_size()

    def take(self) -> int:
        """A free row's index; raises BankFull."""
        if not self._free:
            self._grow()
        return self._free.pop()

    def give_back(self, index: int) -> None:
        """Free a row; work launched before reads it undisturbed, for whatever is written to it comes after."""
        if index < len(self._rows):  # else it was cleared meanwhile
            self._free.append(index)

    def row(self, index: int) -> torch.Tensor:
        """(1, numbers), a view to write a source to."""
        return self._rows[index : index + 1]

    def gather(self, indices: torch.Tensor, out: torch.Tensor) -> None:
        """indices: (B,) int64 on the device. out: (B, numbers)."""
        torch.index_select(self._rows, 0, indices, out=out)

    def clear(self) -> None:
        """Give all memory back; what was taken is lost, and nothing can be taken any more."""
        self.limit = 0
        self._rows = self._rows.new_empty(0, self._rows.shape[1])
        self._free.clear()

    def _grow(self) -> None:
        held = len(self._rows)
        count = min(max(_FIRST_ROWS, 2 * held), self.limit)
        if count <= held:
            raise BankFull(f"the device holds {held} avatars, the most it may")
        try:
            grown = self._rows.new_empty(count, self._rows.shape[1])
        except torch.OutOfMemoryError as error:
            raise BankFull(f"the device's memory holds {held} avatars and no more") from error
        grown[:held] = self._rows
        self._rows = grown
        self._free.extend(range(count - 1, held - 1, -1))
