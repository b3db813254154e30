"""The encoder K in torch: a greatly reduced MobileNetV2 (Sandler et al. 2018) over 256x256 crops.

Inverted residuals reduce the crop to 16x16 and then to 4x4, where every cell sees the whole face. Two light steps bring
this information back up to 16x16. There, each of ten heatmaps gives the place of a keypoint. The refinement of that
place and the Jacobian are averages weighted by the heatmap, as FOMM's Jacobians are (Siarohin et al. 2019, section
3.1).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mien_encoder.keypoints import CROP_SIZE
from mien_encoder.model_file import Manifest, manifest_path
from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid
from mien_shared.keypoints import NUM_KEYPOINTS

#: Scale of the refinement of a place, in crop half sides. A heatmap cell is an eighth of the crop's half side.
_REFINEMENT = 0.25


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual: expands to `hidden` channels, filters, and projects to `out`. stride: 1 or 2."""

    hidden: int
    out: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The layers. stem: channels of the first convolution, at half size.

    to_16, to_8: blocks down to 16x16 and 8x8; tail: the block down to 4x4 and the blocks at 4x4, which pruning cuts
    off. head: channels of the 16x16 map that the heads read.
    """

    stem: int
    to_16: tuple[Block, ...]
    to_8: tuple[Block, ...]
    tail: tuple[Block, ...]
    head: int

    def cut(self) -> EncoderConfig:
        """The configuration without the tail's last block. Raises ValueError if only the step down to 4x4 is left."""
        if len(self.tail) < 2:
            raise ValueError("the tail has no block left to cut")
        return replace(self, tail=self.tail[:-1])

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EncoderConfig:
        """The inverse of as_json."""
        blocks = {name: tuple(Block(**block) for block in values[name]) for name in ("to_16", "to_8", "tail")}
        return cls(stem=values["stem"], head=values["head"], **blocks)


#: The network that distillation starts with, three blocks larger than the budget.
WIDE = EncoderConfig(
    stem=8,
    to_16=(Block(8, 12, 2), Block(36, 20, 2), Block(60, 32, 2), Block(64, 32)),
    to_8=(Block(96, 48, 2), Block(96, 48)),
    tail=(Block(144, 96, 2), *(Block(192, 96),) * 5),
    head=32,
)


class InvertedResidual(nn.Module):
    """(B, C, H, W) -> (B, out, H / stride, W / stride); adds its input where the shapes allow."""

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.adds = block.stride == 1 and channels == block.out
        widen = [] if block.hidden == channels else [_convolution(channels, block.hidden, 1), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(
            *widen,
            _convolution(block.hidden, block.hidden, 3, block.stride, groups=block.hidden),
            nn.ReLU(inplace=True),
            _convolution(block.hidden, block.out, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layers(x)
        return x + made if self.adds else made


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The network's output for a batch. presence: (B,) logits. heat: (B, K, 16, 16) log-probabilities."""

    keypoints: KeypointTensors
    presence: torch.Tensor
    heat: torch.Tensor


class EncoderNetwork(nn.Module):
    """(B, 3, 256, 256) RGB in [-1, 1] -> Encoded; other sizes that are multiples of 64 work as well."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(_convolution(3, config.stem, 3, 2), nn.ReLU(inplace=True))
        self.to_16, at_16 = _blocks(config.stem, config.to_16)
        self.to_8, at_8 = _blocks(at_16, config.to_8)
        self.tail, at_4 = _blocks(at_8, config.tail)
        self.from_4 = _convolution(at_4, at_8, 1)
        self.from_8 = _convolution(at_8, config.head, 1)
        self.from_16 = _convolution(at_16, config.head, 1)
        self.mix = nn.Sequential(
            _convolution(config.head, config.head, 3, groups=config.head),
            nn.ReLU(inplace=True),
            _convolution(config.head, config.head, 1),
            nn.ReLU(inplace=True),
        )
        self.heatmaps = nn.Conv2d(config.head, NUM_KEYPOINTS, 1)
        self.readings = nn.Conv2d(config.head, NUM_KEYPOINTS * 6, 1)
        self.presence = nn.Linear(at_4, 1)
        nn.init.normal_(self.readings.weight, std=0.01)
        nn.init.zeros_(self.readings.bias)

    def features(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of the heads: (B, head, 16, 16), and (B, C, 4, 4) for presence."""
        at_16 = self.to_16(self.stem(picture))
        at_8 = self.to_8(at_16)
        at_4 = self.tail(at_8)
        up_8 = functional.relu(at_8 + _doubled(self.from_4(at_4)))
        return self.mix(functional.relu(self.from_16(at_16) + _doubled(self.from_8(up_8)))), at_4

    def forward(self, picture: torch.Tensor) -> Encoded:
        x, at_4 = self.features(picture)
        heat = self.heatmaps(x).flatten(2).log_softmax(dim=2)
        height, width = x.shape[2:]
        readings = self.readings(x).unflatten(1, (NUM_KEYPOINTS, 6)).flatten(3)
        weights = heat.exp()
        grid = coordinate_grid(height, width, x.device, pixel_centres=True).flatten(0, 1)
        read = (readings * weights[:, :, None]).sum(dim=3)
        points = weights @ grid + _REFINEMENT * read[..., :2]
        jacobians = torch.eye(2, device=x.device) + read[..., 2:].unflatten(2, (2, 2))
        presence = self.presence(at_4.mean(dim=(2, 3)))[:, 0]
        return Encoded(KeypointTensors(points, jacobians), presence, heat.unflatten(2, (height, width)))

    def cut(self) -> EncoderNetwork:
        """The same network without the tail's last block; all other weights are kept."""
        smaller = EncoderNetwork(self.config.cut())
        kept = smaller.state_dict()
        smaller.load_state_dict({name: value for name, value in self.state_dict().items() if name in kept})
        return smaller.to(self.presence.weight.device)


class DeployedEncoder(nn.Module):
    """The exported network: raw pixels (B, 256, 256, 3) uint8 -> points, jacobians, presence in [0, 1].

    It computes the same with fewer operations. The pixels are only centred, because their scale is folded into the
    first convolution. A heatmap sums to 1, so the identity that is added to a Jacobian is folded into the readings'
    bias.
    """

    grid: torch.Tensor

    def __init__(self, network: EncoderNetwork) -> None:
        super().__init__()
        self.network = fused(network).cpu()
        cells = CROP_SIZE // 16
        self.register_buffer(
            "grid", coordinate_grid(cells, cells, torch.device("cpu"), pixel_centres=True).flatten(0, 1)
        )
        with torch.no_grad():
            first = self.network.stem[0]
            assert isinstance(first, nn.Conv2d)
            first.weight /= 127.5
            self.network.readings.weight.view(NUM_KEYPOINTS, 6, -1)[:, :2] *= _REFINEMENT
            bias = self.network.readings.bias
            assert bias is not None
            bias.view(NUM_KEYPOINTS, 6)[:, :2] *= _REFINEMENT
            bias.view(NUM_KEYPOINTS, 6)[:, 2:] += torch.eye(2).flatten()

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, at_4 = self.network.features(crops.permute(0, 3, 1, 2).float() - 127.5)
        cells = (CROP_SIZE // 16) ** 2
        heat = self.network.heatmaps(x).reshape(-1, NUM_KEYPOINTS, cells).softmax(dim=2)
        readings = self.network.readings(x).reshape(-1, NUM_KEYPOINTS, 6, cells)
        place, jacobians = (readings @ heat[..., None]).split((2, 4), dim=2)
        points = place.reshape(-1, NUM_KEYPOINTS, 2) + heat @ self.grid
        presence = self.network.presence(at_4.mean(dim=(2, 3))).reshape(-1)
        return points, jacobians.reshape(-1, NUM_KEYPOINTS, 2, 2), torch.sigmoid(presence)


def fused(network: EncoderNetwork) -> EncoderNetwork:
    """A copy for inference, with every normalisation folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential) and len(child) == 2 and isinstance(child[1], nn.BatchNorm2d):
                assert isinstance(child[0], nn.Conv2d)
                setattr(module, name, nn.utils.fuse_conv_bn_eval(child[0], child[1]))
    return network


def write_encoder(network: EncoderNetwork, path: Path) -> Manifest:
    """Export as ONNX, with a manifest, for mien_encoder.KeypointEncoder. Needs the onnx package."""
    deployed = DeployedEncoder(network).eval()
    crops = torch.zeros(1, CROP_SIZE, CROP_SIZE, 3, dtype=torch.uint8)
    names = ("points", "jacobians", "presence")
    with warnings.catch_warnings():
        # torch's newer exporter needs two more packages.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            deployed,
            (crops,),
            str(path),
            input_names=["crops"],
            output_names=list(names),
            dynamic_axes={name: {0: "count"} for name in ("crops", *names)},
            opset_version=17,
            dynamo=False,
        )
    manifest = Manifest.of(path.read_bytes())
    manifest.write(manifest_path(path))
    return manifest


def _blocks(channels: int, blocks: Sequence[Block]) -> tuple[nn.Sequential, int]:
    layers = []
    for block in blocks:
        layers.append(InvertedResidual(channels, block))
        channels = block.out
    return nn.Sequential(*layers), channels


def _convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)
    )


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
