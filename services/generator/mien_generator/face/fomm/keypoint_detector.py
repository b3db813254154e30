"""FOMM's keypoint detector: picture in, keypoints with Jacobians out (Siarohin et al. 2019, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from mien_generator.face.fomm.blocks import AntiAliasDownscale
from mien_generator.face.fomm.config import ConfigError, FommConfig
from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid
from mien_generator.face.fomm.hourglass import Hourglass


class KeypointDetector(nn.Module):
    """(B, 3, H, W) in [0, 1] -> K keypoints: position and Jacobian are means weighted by the keypoint's heatmap."""

    def __init__(self, config: FommConfig) -> None:
        super().__init__()
        detector = config.keypoint_detector
        if detector is None:
            raise ConfigError("this model has no keypoint detector")
        self.temperature = detector.temperature
        self.down = AntiAliasDownscale(config.num_channels, detector.scale_factor)
        self.predictor = Hourglass(detector, config.num_channels)
        # Unpadded, as published: heatmaps are 6 pixels smaller than the features. Their grid still spans [-1, 1].
        self.kp = nn.Conv2d(self.predictor.out_features, config.num_keypoints, 7)
        self.jacobian = nn.Conv2d(self.predictor.out_features, 4 * config.num_keypoints, 7)

    def forward(self, picture: torch.Tensor) -> KeypointTensors:
        features = self.predictor(self.down(picture))  # (B, C, H/4, W/4)
        logits = self.kp(features).float()  # (B, K, h, w)
        height, width = logits.shape[2:]
        heatmaps = torch.softmax(logits.flatten(2) / self.temperature, dim=2)  # (B, K, h*w)
        grid = coordinate_grid(height, width, picture.device).flatten(0, 1)  # (h*w, 2)
        jacobian_maps = self.jacobian(features).float().unflatten(1, (-1, 4)).flatten(3)  # (B, K, 4, h*w)
        jacobians = (jacobian_maps @ heatmaps[..., None]).squeeze(-1)  # (B, K, 4)
        return KeypointTensors(points=heatmaps @ grid, jacobians=jacobians.unflatten(-1, (2, 2)))
