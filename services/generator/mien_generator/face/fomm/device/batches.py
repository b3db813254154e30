"""Batches of a few sizes over buffers that stay where they are: a CUDA graph replays each in one launch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

#: (B, numbers) rows, (B, 2, K, 6) keypoints -> (B, 3, S, S).
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Sizes a GPU runs; a batch between two is padded up to the larger.
GRAPH_SIZES = (1, 2, 4, 8, 16, 32)

_WARM_UP_RUNS = 3


class Batches:
    """The network's inputs, and its runs.

    rows: (largest, numbers). keypoints: (largest, 2, K, 6) float32. Fill the first `padded(n)` of both, then `run(n)`.
    What it returns is valid until the next run; what is launched in the same stream meanwhile reads it undisturbed.
    """

    def __init__(self, network: Network, rows: torch.Tensor, keypoints: torch.Tensor, sizes: Sequence[int]) -> None:
        """sizes: ascending; the largest is the number of rows."""
        self.rows = rows
        self.keypoints = keypoints
        self.sizes = tuple(sizes)
        self._network = network
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    @property
    def largest(self) -> int:
        """Faces in one run, at most."""
        return self.sizes[-1]

    def padded(self, count: int) -> int:
        """The size that a batch of `count` runs at."""
        return self.sizes[bisect_left(self.sizes, count)]

    def run(self, count: int) -> torch.Tensor:
        """(count, 3, S, S) float32 from the first `count` inputs, 1 to `largest`."""
        size = self.padded(count)
        if size in self._graphs:
            graph, made = self._graphs[size]
            graph.replay()
        else:
            made = self._network(self.rows[:size], self.keypoints[:size])
        return made[:count]

    def capture(self) -> None:
        """Record every size as a CUDA graph, largest first: the others fit into the memory it took.

        Called in the stream that will run them, with finite inputs in place.
        """
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self.sizes):
            rows, keypoints = self.rows[:size], self.keypoints[:size]
            for _ in range(_WARM_UP_RUNS):  # kernels are chosen and compiled before, not while, they are recorded
                self._network(rows, keypoints)
            torch.cuda.current_stream().synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                made = self._network(rows, keypoints)
            self._graphs[size] = (graph, made)
