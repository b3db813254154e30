"""Widths and depths of a First Order Motion Model, named as in its published configuration. Does not need torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, cast

Width = Literal["half", "full"]


#: Variance of a keypoint's Gaussian, in squared crop units ([-1, 1]). The published networks were trained with it.
KEYPOINT_VARIANCE = 0.01

#: Determinant used for a singular Jacobian. Real faces stay far above it: an eye that closes to a tenth of its height
#: has 0.1.
SMALLEST_DETERMINANT = 1e-6


class ConfigError(ValueError):
    """A model configuration does not describe a network of this family; the text names the field."""


@dataclass(frozen=True, slots=True)
class HourglassConfig:
    """An hourglass and the scale of its input picture.

    Level i of `num_blocks` has min(max_features, block_expansion * 2^i) channels.
    """

    block_expansion: int
    max_features: int
    num_blocks: int
    scale_factor: float = 0.25


@dataclass(frozen=True, slots=True)
class KeypointDetectorConfig(HourglassConfig):
    """temperature: divides the heatmap's logits before their softmax."""

    temperature: float = 0.1


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """The occlusion-aware generator around a dense motion network."""

    block_expansion: int
    max_features: int
    num_down_blocks: int
    num_bottleneck_blocks: int
    dense_motion: HourglassConfig


@dataclass(frozen=True, slots=True)
class FommConfig:
    """A whole model: the generator, and optionally a keypoint detector.

    keypoint_detector: None if the keypoints come from elsewhere; Mien's bundled weights use those of the encoder K.
    pixel_centres: where the coordinates -1 and 1 lie. False, as published: on the centres of the corner pixels, but
    sampling places them on the picture's edges, so that motion at rest shifts the picture slightly. True: on the edges
    in both, at every scale, so that motion at rest is the identity. It costs no time. Weights fit only the value that
    they were trained with.
    source_residual: add to each frame the moved difference between the source and the network's picture at rest
    (docs/decisions/0010).
    """

    keypoint_detector: KeypointDetectorConfig | None
    generator: GeneratorConfig
    num_keypoints: int = 10
    num_channels: int = 3
    pixel_centres: bool = False
    source_residual: bool = False

    def __post_init__(self) -> None:
        if self.source_residual and not self.pixel_centres:
            raise ConfigError("model configuration: source_residual needs pixel_centres: set it to true")

    @property
    def size_multiple(self) -> int:
        """Picture sides must be multiples of this number of pixels, or skip connections have other sizes."""
        generator = self.generator
        hourglasses = [each for each in (generator.dense_motion, self.keypoint_detector) if each is not None]
        return max(
            2**generator.num_down_blocks,
            *(round(2**hourglass.num_blocks / hourglass.scale_factor) for hourglass in hourglasses),
        )

    def check_size(self, size: int) -> None:
        """Raise ConfigError unless a picture `size` pixels wide passes through every network."""
        if size <= 0 or size % self.size_multiple:
            raise ConfigError(f"the picture size of this model must be a multiple of {self.size_multiple}, not {size}")

    def to_json(self) -> str:
        """One line of JSON with sorted keys, so that equal configurations give equal texts."""
        return json.dumps(self.to_published(), sort_keys=True, separators=(",", ":"))

    def to_published(self) -> dict[str, object]:
        """The nested form of the published configuration files (their `model_params`)."""
        detector = {} if self.keypoint_detector is None else {"kp_detector_params": asdict(self.keypoint_detector)}
        generator = asdict(self.generator)
        dense_motion = generator.pop("dense_motion")
        return {
            "common_params": {
                "num_kp": self.num_keypoints,
                "num_channels": self.num_channels,
                "estimate_jacobian": True,
            }
            | {name: True for name in ("pixel_centres", "source_residual") if getattr(self, name)},
            **detector,
            "generator_params": generator | {"estimate_occlusion_map": True, "dense_motion_params": dense_motion},
        }

    @classmethod
    def from_json(cls, text: str | bytes) -> FommConfig:
        """Read a published configuration, converted to JSON, with or without its outer `model_params`.

        Without `kp_detector_params` it describes only a generator.

        Raises ConfigError, which names the field that is missing, has a wrong type, or asks for another architecture.
        """
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the model configuration is not JSON: {error}") from error
        root = _Section("", tree)
        if "model_params" in root.values:
            root = root.section("model_params")
        common = root.section("common_params")
        generator = root.section("generator_params")
        dense_motion = generator.section("dense_motion_params")
        common.require_flag("estimate_jacobian", True, default=False)
        generator.require_flag("estimate_occlusion_map", True, default=False)
        return cls(
            keypoint_detector=_keypoint_detector(root) if "kp_detector_params" in root.values else None,
            generator=GeneratorConfig(
                block_expansion=generator.count("block_expansion"),
                max_features=generator.count("max_features"),
                num_down_blocks=generator.count("num_down_blocks"),
                num_bottleneck_blocks=generator.count("num_bottleneck_blocks"),
                dense_motion=_hourglass(dense_motion),
            ),
            num_keypoints=common.count("num_kp"),
            num_channels=common.count("num_channels"),
            pixel_centres=common.flag("pixel_centres", default=False),
            source_residual=common.flag("source_residual", default=False),
        )


@dataclass(frozen=True, slots=True)
class _Section:
    path: str
    values: Mapping[str, object]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise ConfigError(f"model configuration: {self.path or 'the whole'} is not an object")

    def name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def section(self, key: str) -> _Section:
        if key not in self.values:
            raise ConfigError(f"model configuration: {self.name(key)} is missing")
        return _Section(self.name(key), cast("Mapping[str, object]", self.values[key]))

    def count(self, key: str) -> int:
        if key not in self.values:
            raise ConfigError(f"model configuration: {self.name(key)} is missing")
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"model configuration: {self.name(key)} must be a whole number above 0, not {value!r}")
        return value

    def number(self, key: str, *, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise ConfigError(f"model configuration: {self.name(key)} must be a number in (0, 1], not {value!r}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"model configuration: {self.name(key)} must be true or false, not {value!r}")
        return value

    def require_flag(self, key: str, wanted: bool, *, default: bool) -> None:
        value = self.values.get(key, default)
        if value is not wanted:
            raise ConfigError(f"model configuration: {self.name(key)} must be {wanted}, not {value!r}")


def _keypoint_detector(root: _Section) -> KeypointDetectorConfig:
    detector = root.section("kp_detector_params")
    detector.require_flag("single_jacobian_map", False, default=False)
    return KeypointDetectorConfig(
        **asdict(_hourglass(detector)), temperature=detector.number("temperature", default=0.1)
    )


def _hourglass(section: _Section) -> HourglassConfig:
    scale_factor = section.number("scale_factor", default=1.0)
    if round(1 / scale_factor) * scale_factor != 1:
        raise ConfigError(f"model configuration: {section.name('scale_factor')} must be 1/n, not {scale_factor!r}")
    return HourglassConfig(
        block_expansion=section.count("block_expansion"),
        max_features=section.count("max_features"),
        num_blocks=section.count("num_blocks"),
        scale_factor=scale_factor,
    )


#: The published VoxCeleb configuration (vox-256): 45.58 M parameters.
FULL_WIDTH = FommConfig(
    keypoint_detector=KeypointDetectorConfig(block_expansion=32, max_features=1024, num_blocks=5),
    generator=GeneratorConfig(
        block_expansion=64,
        max_features=512,
        num_down_blocks=2,
        num_bottleneck_blocks=6,
        dense_motion=HourglassConfig(block_expansion=64, max_features=1024, num_blocks=5),
    ),
)

#: The ultra-lightweight paper's generator: all widths halved, except the deepest of dense motion. 16.17 M parameters.
HALF_WIDTH = FommConfig(
    keypoint_detector=KeypointDetectorConfig(block_expansion=32, max_features=1024, num_blocks=5),
    generator=GeneratorConfig(
        block_expansion=32,
        max_features=256,
        num_down_blocks=2,
        num_bottleneck_blocks=6,
        dense_motion=HourglassConfig(block_expansion=32, max_features=1024, num_blocks=5),
    ),
)

WIDTHS: Mapping[Width, FommConfig] = {"half": HALF_WIDTH, "full": FULL_WIDTH}
