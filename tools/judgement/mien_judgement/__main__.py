"""The command: `python -m mien_judgement find|plot|pictures|smoothing|l2`.

`find` saves a clip's keypoints to a file, which the other commands accept in place of the clip.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mien_encoder.judgement import FrameVerdict
from mien_generator.face.contract import AvatarFace
from mien_judgement import drawing
from mien_judgement.clip import FoundMotion, found_in, noisy, pictures_of
from mien_judgement.smoothing import figures_of
from mien_shared.keypoints import Keypoints

_BUNDLED = Path(__file__).parents[3] / "services/gateway/mien_gateway/bundled"
_NOISE = 4.0
_NOISY_FRAMES = 120


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_judgement", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    find = commands.add_parser("find", help="save a clip's keypoints, and those of its first frame with noise, as .npz")
    plot = commands.add_parser(
        "plot", help="plot L2 over a clip with the rejected spans: with a fixed crop and with a following crop"
    )
    pictures = commands.add_parser("pictures", help="draw what viewers of the bundled avatar see in the rejected spans")
    smoothing = commands.add_parser("smoothing", help="print jitter and lag of each smoother on a clip")
    for command in (find, plot, pictures, smoothing):
        command.add_argument("clip", type=Path, help="A video, or a file from `find`.")
    for command in (find, plot, pictures):
        command.add_argument("-o", "--output", type=Path, required=True)
    pictures.add_argument("--moments", type=int, default=5)
    table = commands.add_parser("l2", help="print L2 of clips and the share of rejected frames")
    table.add_argument("clips", type=Path, nargs="+", help="Videos, or files from `find`.")

    cv2.setNumThreads(1)
    chosen = parser.parse_args(arguments)
    if chosen.command == "find":
        keep(chosen.clip, chosen.output)
    elif chosen.command == "smoothing":
        print_smoothing(chosen.clip)
    elif chosen.command == "l2":
        print_l2(chosen.clips)
    else:
        avatar = bundled_avatar()
        clip = found(chosen.clip)
        held = drawing.judge(clip.held(), avatar.keypoints)
        if chosen.command == "plot":
            followed = drawing.judge(clip, avatar.keypoints)
            name = chosen.clip.stem
            panels = {f"{name}, crop held where it began": held, f"{name}, crop follows (mien send)": followed}
            drawing.plot(panels, chosen.output)
        else:
            drawing.pictures(held, avatar, chosen.moments, chosen.output)
    return 0


def bundled_avatar() -> AvatarFace:
    """The project's own drawn avatar: its face crop and keypoints."""
    drawn = json.loads((_BUNDLED / "mien.json").read_text())
    picture = cv2.cvtColor(cv2.imread(str(_BUNDLED / "mien.png")), cv2.COLOR_BGR2RGB)
    x, y, size = (drawn["crop"][name] for name in ("x", "y", "size"))
    return AvatarFace(
        np.ascontiguousarray(picture[y : y + size, x : x + size]), Keypoints.from_rows(drawn["keypoints"])
    )


def found(clip: Path) -> FoundMotion:
    """A clip's keypoints, from a file of `find` or found now."""
    if clip.suffix == ".npz":
        kept = np.load(clip)
        return FoundMotion(kept["times_s"], kept["rows"], kept["boxes"])
    return found_in(pictures_of(clip))


def found_with_noise(clip: Path) -> FoundMotion:
    """The keypoints of a clip's first frame, repeated with new noise each time."""
    if clip.suffix == ".npz":
        kept = np.load(clip)
        return FoundMotion(kept["noisy_times_s"], kept["noisy_rows"], kept["noisy_boxes"])
    first = next(iter(pictures_of(clip)))[1]
    return found_in(noisy(first, _NOISY_FRAMES, _NOISE))


def keep(clip: Path, output: Path) -> None:
    motion, still = found(clip), found_with_noise(clip)
    np.savez_compressed(
        output,
        times_s=motion.times_s,
        rows=motion.rows,
        boxes=motion.boxes,
        noisy_times_s=still.times_s,
        noisy_rows=still.rows,
        noisy_boxes=still.boxes,
    )


def print_smoothing(path: Path) -> None:
    say("| smoother | jitter, still second | jitter, still frame with noise | lag |\n|---|---|---|---|")
    for row in figures_of(found(path).longest_with_a_face(), found_with_noise(path).longest_with_a_face()):
        say(f"| {row.name} | {row.still_px:.2f} px | {row.noise_px:.2f} px | {row.lag_frames:.1f} frames |")


def print_l2(paths: Sequence[Path]) -> None:
    source = bundled_avatar().keypoints
    say("| clip | frames | median | 99 % | greatest | rejected | rejected, crop held |\n|---|---|---|---|---|---|---|")
    for path in paths:
        clip = found(path)
        followed, held = drawing.judge(clip, source), drawing.judge(clip.held(), source)
        values = [judged.l2 for judged in followed.judged if judged.l2 is not None]
        median, high, greatest = np.percentile(values, [50, 99, 100])
        say(
            f"| {path.stem} | {len(clip)} | {median:.2f} | {high:.2f} | {greatest:.2f}"
            f" | {followed.share(FrameVerdict.REJECTED):.1%} | {held.share(FrameVerdict.REJECTED):.1%} |"
        )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
