"""The four steps as the commands run them: each reads its configuration, trains and writes its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mien_generator.face.fomm.checkpoint import FommWeights, read_weights, write_weights
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_training import distil as distillation
from mien_training import prune as pruning
from mien_training.config import at_least, read_config
from mien_training.datasets import Augmentation, PairSampler
from mien_training.encoder_network import EncoderConfig, EncoderNetwork, write_encoder
from mien_training.finetune import Finetuner, FinetuneStage
from mien_training.generator import GeneratorTrainer, Schedule, Stage
from mien_training.labelled import DatasetError, LabelledSet, Split, open_sets
from mien_training.run import Run, RunError

#: Steps three and four write the generator to this file in their run's folder, as float16.
GENERATOR_FILE = "fomm-half.safetensors"
#: Step four also writes the matching encoder.
ENCODER_FILE = "encoder.onnx"


@dataclass(frozen=True, slots=True)
class Arguments:
    """One command's arguments. encoder: the folder of the previous run; generator: the weights of step three."""

    config: Path
    data: Path
    run: Run
    device: torch.device
    bf16: bool
    encoder: Path | None = None
    generator: Path | None = None


@dataclass(frozen=True, slots=True)
class PairConfig:
    """The choice of pairs. validation: identities never trained on; weights: how often each kind of set is drawn."""

    validation: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    weights: dict[str, float] = field(
        default_factory=lambda: {"clip": 0.33, "still": 0.05, "ict": 0.2, "drawn": 0.12, "moved": 0.3}
    )
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def samplers(self, data: Path, device: torch.device) -> tuple[PairSampler, PairSampler | None]:
        """Samplers of training pairs and of hardly augmented validation pairs; None if there is no validation set."""
        training, held = open_sets(data, Split(self.validation, self.left_out))
        of_training = PairSampler(
            _weighted(training, self.weights), self.weights, self.augmentation, device=device, seed=self.seed
        )
        if not held:
            return of_training, None
        plain = Augmentation(0.03, 0.05, 0.05, 0.1, 0.1, 0.05, 0.01, 0.0, 0.0, 0.0)
        every_kind = {labelled.kind: 1.0 for labelled in held}
        return of_training, PairSampler(held, every_kind, plain, device=device, seed=self.seed)


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Step three."""

    pairs: PairConfig
    stages: tuple[Stage, ...]
    schedule: Schedule = field(default_factory=Schedule)
    average_decay: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, stages=len(self.stages))


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """Step four."""

    pairs: PairConfig
    stage: FinetuneStage
    report: int = 20
    save: int = 200
    average_decay: float = 0.998
    seed: int = 0


def distil(arguments: Arguments) -> None:
    """Run step one; writes the encoder's checkpoint."""
    config = read_config(arguments.config, distillation.DistilConfig)
    distillation.distil(config, arguments.data, arguments.run, device=arguments.device, bf16=arguments.bf16)


def prune(arguments: Arguments) -> None:
    """Run step two; writes the figures of every cut and the best encoder."""
    assert arguments.encoder is not None
    config = read_config(arguments.config, pruning.PruneConfig)
    pruning.prune(
        config, arguments.data, arguments.run, arguments.encoder, device=arguments.device, bf16=arguments.bf16
    )


def generator(arguments: Arguments) -> None:
    """Run step three; writes GENERATOR_FILE."""
    config = read_config(arguments.config, GeneratorConfig)
    sampler, held = config.pairs.samplers(arguments.data, arguments.device)
    trainer = GeneratorTrainer(
        arguments.run,
        config.stages,
        sampler,
        held,
        device=arguments.device,
        bf16=arguments.bf16,
        schedule=config.schedule,
        average_decay=config.average_decay,
        seed=config.seed,
    )
    write_generator(trainer.train(), trainer.config, arguments.run.folder / GENERATOR_FILE)


def finetune(arguments: Arguments) -> None:
    """Run step four; writes GENERATOR_FILE and ENCODER_FILE."""
    assert arguments.encoder is not None and arguments.generator is not None
    config = read_config(arguments.config, FinetuneConfig)
    sampler, _ = config.pairs.samplers(arguments.data, arguments.device)
    weights = read_weights(arguments.generator)
    both = Finetuner(
        arguments.run,
        config.stage,
        trained_encoder(arguments.encoder, arguments.device),
        weights.generator(),
        sampler,
        device=arguments.device,
        bf16=arguments.bf16,
        report=config.report,
        save=config.save,
        average_decay=config.average_decay,
        seed=config.seed,
    ).train()
    write_generator(both.generator, weights.config, arguments.run.folder / GENERATOR_FILE)
    write_encoder(both.encoder, arguments.run.folder / ENCODER_FILE)


def write_generator(network: OcclusionAwareGenerator, config: FommConfig, path: Path) -> None:
    """Write the network as services read it: float16, without a keypoint detector."""
    write_weights(FommWeights.of_generator(config, network.state_dict()).half(), path)


def trained_encoder(folder: Path, device: torch.device) -> EncoderNetwork:
    """The averaged encoder of a run of step one or two. Raises RunError if the folder has none."""
    state = Run(folder, resume=True).checkpoint(device)
    if state is None or "network_config" not in state:
        raise RunError(f"{folder.name} holds no encoder run (step 1 or 2)")
    network = EncoderNetwork(EncoderConfig.from_json(state["network_config"])).to(device)
    network.load_state_dict(state["average"]["weights"])
    return network.eval().requires_grad_(False)


def _weighted(sets: Sequence[LabelledSet], weights: dict[str, float]) -> list[LabelledSet]:
    kept = [labelled for labelled in sets if weights.get(labelled.kind, 0.0) > 0]
    if not kept:
        raise DatasetError(f"no set is of a kind with a weight; the weighted kinds are {', '.join(sorted(weights))}")
    return kept
