"""Networks that learned nothing but let everything through: for tests, and for measuring speed without a file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator


def randomise(network: nn.Module) -> None:
    """Draw its weights from torch's generator; every normalisation has statistics of its own: none is the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # torch's default fades to a flat grey over this many layers
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@dataclass(frozen=True, slots=True)
class UntrainedWeights:
    """What a generator is made of, without a file; the same for the same seed."""

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
