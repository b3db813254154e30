"""The command: `python -m mien_voice_mouth fit CLIP...` prints the tables of mouth.py, voice_mouth.py and their ports.

The clips need sound in step with their pictures. It also prints the correlations that decision 26 quotes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mien_voice_mouth.clips import SpokenClip, spoken
from mien_voice_mouth.fit import as_shipped, held_out, mouth_direction, voice_weights


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_voice_mouth", description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+")
    cv2.setNumThreads(1)
    clips = [spoken(path) for path in parser.parse_args(arguments).clips]
    say("What an opening of 1 adds to each keypoint (x, y, j00, j01, j10, j11):")
    for number, row in enumerate(mouth_direction(clips)):
        if row.any():
            say(f"    {number}: ({', '.join(f'{value + 0.0:.4f}' for value in row.round(4))}),")
    print_voice(clips)
    return 0


def print_voice(clips: Sequence[SpokenClip]) -> None:
    weights, rest = voice_weights(clips)
    say(f"Weights of the bands: {', '.join(f'{weight:.3f}' for weight in weights)}; of silence: {rest:.3f}")
    found = held_out(clips)
    say("| person, not fitted on | bands | level alone |\n|---|---|---|")
    for person, (bands, level) in found.items():
        say(f"| {person} | {bands:.2f} | {level:.2f} |")
    means = np.mean(list(found.values()), axis=0)
    say(f"| mean | {means[0]:.3f} | {means[1]:.3f} |")
    shipped = {clip.person: [as_shipped(one) for one in clips if one.person == clip.person] for clip in clips}
    say(f"As shipped, with gate and rounding: {np.mean([np.mean(own) for own in shipped.values()]):.3f}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
