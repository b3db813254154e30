"""The command: `python -m mien_training.synthetic ict --out DIR --identities N --seed S` writes DIR/ict_000 ...

`moved` reads the labelled sets in DIR and writes DIR/moved_NAME for each still, rendered head and drawn character.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

if TYPE_CHECKING:
    from mien_training.synthetic.dataset import LabelledSequence

SIZE = 384


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_training.synthetic", description="Writes labelled synthetic heads.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--out", type=Path, required=True, help="Folder for the sequences' folders.")
    every.add_argument("--seed", type=int, default=0)
    for kind, what in (("ict", "make rendered people"), ("drawn", "make drawn characters")):
        made = kinds.add_parser(kind, help=what, parents=[every])
        made.add_argument("--identities", type=int, default=200)
        made.add_argument("--frames", type=int, default=12, help="Frames per identity.")
        made.add_argument("--size", type=int, default=SIZE, help="Side of a frame in pixels.")
        made.set_defaults(run=_make)
    kinds.choices["ict"].add_argument(
        "--avatar3d", type=Path, default=Path("../shared/data/avatar3d"), help="Folder of the ICT model."
    )
    kinds.choices["drawn"].add_argument(
        "--traced-size", type=int, help="Side of frames before they are scaled to --size; smaller is faster."
    )
    still = kinds.add_parser(
        "moved", help="move the stills in --out with the motions of its clips, by warp", parents=[every]
    )
    still.add_argument("--validation", nargs="*", default=[], help="Identities that are not used.")
    still.set_defaults(run=_move)
    chosen = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    for folder in chosen.run(chosen):
        sys.stdout.write(f"{folder}\n")
        sys.stdout.flush()
    return 0


def _make(chosen: argparse.Namespace) -> Iterator[Path]:
    from mien_training.synthetic.dataset import write

    source, sequences = _made(chosen)
    for number, sequence in enumerate(sequences):
        folder = chosen.out / f"{chosen.kind}_{number:03d}"
        write(sequence, folder, chosen.kind, source)
        yield folder


def _move(chosen: argparse.Namespace) -> Iterator[Path]:
    from mien_training.labelled import Split, open_sets
    from mien_training.synthetic import moved

    sets, _ = open_sets(chosen.out, Split(tuple(chosen.validation)))
    stills = [labelled for labelled in sets if labelled.kind in moved.FRAMES]
    clips = [labelled for labelled in sets if labelled.kind == "clip"]
    for still, sequence in moved.moved_sequences(stills, clips, chosen.seed):
        folder = chosen.out / f"moved_{still.name}"
        moved.write(still, sequence, folder)
        yield folder


def _made(chosen: argparse.Namespace) -> tuple[str, Iterator[LabelledSequence]]:
    """The source text and the sequences. Imports are local: each kind needs its own packages, OpenGL or a compiler."""
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
