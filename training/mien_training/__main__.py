"""The command: `python -m mien_training distil|prune|generator|finetune --config FILE --data FOLDER --out RUN`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mien_training import steps
from mien_training.config import TrainingConfigError
from mien_training.labelled import DatasetError
from mien_training.run import Run, RunError


@dataclass(frozen=True, slots=True)
class _Step:
    run: Callable[[steps.Arguments], None]
    help: str
    needs: tuple[str, ...] = ()


_STEPS = {
    "distil": _Step(steps.distil, "step 1: train an encoder on the teacher's keypoints (eq. 1)"),
    "prune": _Step(steps.prune, "step 2: cut off the encoder's last layers one by one and distil again", ("encoder",)),
    "generator": _Step(steps.generator, "step 3: train the half-width generator with the teacher's keypoints"),
    "finetune": _Step(steps.finetune, "step 4: train both together, without supervision", ("encoder", "generator")),
}
_NEEDS_HELP = {
    "encoder": "The folder of the previous run: of `distil` for prune, of `prune` for finetune.",
    "generator": "The weights file that step 3 wrote (safetensors).",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_training", description=__doc__)
    commands = parser.add_subparsers(dest="step", required=True)
    for name, step in _STEPS.items():
        command = commands.add_parser(name, help=step.help)
        command.add_argument("--config", type=Path, required=True, help="TOML file; configs/ has Mien's.")
        command.add_argument("--data", type=Path, required=True, help="Folder of labelled sets.")
        command.add_argument("--out", type=Path, required=True, help="The run's folder.")
        command.add_argument("--resume", action="store_true", help="Continue from the run's checkpoint.")
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        command.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
        command.add_argument("--threads", type=int, help="Number of torch's CPU threads. Default: all cores.")
        for need in step.needs:
            command.add_argument(f"--{need}", type=Path, required=True, help=_NEEDS_HELP[need])
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        _STEPS[chosen.step].run(
            steps.Arguments(
                config=chosen.config,
                data=chosen.data,
                run=Run(chosen.out, resume=chosen.resume),
                device=torch.device(chosen.device),
                bf16=chosen.precision == "bf16",
                encoder=getattr(chosen, "encoder", None),
                generator=getattr(chosen, "generator", None),
            )
        )
    except (TrainingConfigError, DatasetError, RunError, OSError) as error:
        sys.stderr.write(f"mien_training: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
