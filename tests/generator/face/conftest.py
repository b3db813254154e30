"""What the tests of FOMM share: a small model, and the published code's own output where the data is to hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import exported, one_thread, own_config, small_config

__all__ = ["exported", "one_thread", "own_config", "small_config"]

PUBLISHED = Path(__file__).parents[4] / "shared/data/fomm"


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder with a checkpoint in the published format and what the published code computes with it."""
    if not (PUBLISHED / "tiny_vectors.npz").exists():
        pytest.skip("shared/data/fomm is not beside the repository: no published vectors to compare with")
    return PUBLISHED
