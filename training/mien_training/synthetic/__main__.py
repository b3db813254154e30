"""The command: `python -m mien_training.synthetic ict --out DIR --identities N --seed S` writes DIR/ict_000 ...

`moved` takes the labelled sets of DIR but for --validation's identities, and writes DIR/moved_NAME for each still,
rendered head and character of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from mien_training.synthetic.dataset import LabelledSequence, write

SIZE = 384


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_training.synthetic", description="Writes labelled synthetic heads.")
    parser.add_argument("kind", choices=["ict", "drawn", "moved"])
    parser.add_argument("--out", type=Path, required=True, help="folder that the sequences' folders go to")
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--frames", type=int, default=12, help="of each identity")
    parser.add_argument("--size", type=int, default=SIZE, help="side of a frame, pixels")
    parser.add_argument("--traced-size", type=int, help="of drawn frames before they are scaled; smaller is quicker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--avatar3d", type=Path, default=Path("../shared/data/avatar3d"), help="the ICT model's folder")
    parser.add_argument("--validation", nargs="*", default=[], help="identities that `moved` takes nothing of")
    chosen = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    if chosen.kind == "moved":
        return _move(chosen.out, tuple(chosen.validation), chosen.seed)
    source, sequences = _made(chosen)
    for number, sequence in enumerate(sequences):
        folder = chosen.out / f"{chosen.kind}_{number:03d}"
        write(sequence, folder, chosen.kind, source)
        sys.stdout.write(f"{folder}\n")
        sys.stdout.flush()
    return 0


def _move(folder: Path, validation: tuple[str, ...], seed: int) -> int:
    from mien_training.datasets import Split, open_sets
    from mien_training.synthetic import moved

    sets, _ = open_sets(folder, Split(validation))
    stills = [labelled for labelled in sets if labelled.kind in moved.FRAMES]
    clips = [labelled for labelled in sets if labelled.kind == "clip"]
    for still, sequence in moved.moved_sequences(stills, clips, seed):
        moved.write(still, sequence, folder / f"moved_{still.name}")
        sys.stdout.write(f"{still.name}\n")
    return 0


def _made(chosen: argparse.Namespace) -> tuple[str, Iterator[LabelledSequence]]:
    """Each kind needs packages that the other does not: an OpenGL context, or a compiler."""
    if chosen.kind == "ict":
        from mien_training.synthetic import ict
        from mien_training.synthetic.head import HeadModel

        made = ict.ict_sequences(HeadModel(chosen.avatar3d), chosen.identities, chosen.frames, chosen.size, chosen.seed)
        return ict.SOURCE, made
    from mien_training.synthetic import drawn

    return drawn.SOURCE, drawn.drawn_sequences(
        chosen.identities, chosen.frames, chosen.size, chosen.seed, chosen.traced_size
    )


if __name__ == "__main__":
    sys.exit(main())
