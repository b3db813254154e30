"""Runs batches of a few sizes on buffers with fixed addresses, so that a CUDA graph replays each in one launch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

#: (B, numbers) rows, (B, 2, K, 6) keypoints -> (B, 3, S, S).
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: Batch sizes on a GPU; a batch between two sizes is padded to the larger one.
GRAPH_SIZES = (1, 2, 4, 8, 16, 32)

_WARM_UP_RUNS = 3


class Batches:
    """The network's input buffers, and its runs.

    rows: (largest, numbers). keypoints: (largest, 2, K, 6) float32. Fill the first `padded(n)` of both, then call
    `run(n)`. The result is valid until the next run; work launched before that in the same stream reads it safely.
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
        """Largest number of faces in one run."""
        return self.sizes[-1]

    def padded(self, count: int) -> int:
        """The size with which a batch of `count` faces runs."""
        return self.sizes[bisect_left(self.sizes, count)]

    def run(self, count: int) -> torch.Tensor:
        """(count, 3, S, S) float32 from the first `count` inputs; count is 1 to `largest`."""
        size = self.padded(count)
        if size in self._graphs:
            graph, made = self._graphs[size]
            graph.replay()
        else:
            made = self._network(self.rows[:size], self.keypoints[:size])
        return made[:count]

    def capture(self) -> None:
        """Record every size as a CUDA graph. The largest is first, so that the others reuse its memory.

        Must be called in the stream that will run the graphs, with finite values in the buffers.
        """
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self.sizes):
            rows, keypoints = self.rows[:size], self.keypoints[:size]
            for _ in range(_WARM_UP_RUNS):  # choose and compile kernels before recording
                self._network(rows, keypoints)
            torch.cuda.current_stream().synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                made = self._network(rows, keypoints)
            self._graphs[size] = (graph, made)
