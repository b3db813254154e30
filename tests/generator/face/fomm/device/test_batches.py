from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.device.batches import Batches


def summing(rows: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    return rows.sum(dim=1) + keypoints.sum(dim=(1, 2, 3))


def test_a_batch_runs_at_the_next_size_and_gives_what_was_asked() -> None:
    ran = []

    def network(rows: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        ran.append(len(rows))
        return summing(rows, keypoints)

    batches = Batches(network, torch.rand(8, 5), torch.rand(8, 2, 10, 6), [1, 2, 4, 8])
    assert batches.largest == 8
    for count, size in [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)]:
        assert batches.padded(count) == size
        made = batches.run(count)
        assert torch.equal(made, summing(batches.rows[:count], batches.keypoints[:count]))
        assert ran.pop() == size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_graph_replays_on_what_its_buffers_hold() -> None:
    rows, keypoints = torch.rand(4, 5, device="cuda"), torch.rand(4, 2, 10, 6, device="cuda")
    batches = Batches(summing, rows, keypoints, [1, 2, 4])
    with torch.cuda.stream(torch.cuda.Stream()):
        batches.capture()
        for count in (1, 3, 4):
            rows.copy_(torch.rand(4, 5))
            assert torch.allclose(batches.run(count), summing(rows, keypoints)[:count])
