"""Networks with random weights that pass signals through: for tests, and for speed measurements without a file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator


def randomise(network: nn.Module) -> None:
    """Draw the weights from torch's random generator. Normalisations get random statistics, so none is the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # with torch's default, this many layers give a flat grey
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@dataclass(frozen=True, slots=True)
class UntrainedWeights:
    """Random weights for a generator, without a file. The same seed gives the same weights."""

    config: FommConfig
    seed: int = 0

    def generator(self) -> OcclusionAwareGenerator:
        """The network, float32, in eval mode, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = OcclusionAwareGenerator(self.config)
            randomise(network)
        network.eval().requires_grad_(False)
        return network
