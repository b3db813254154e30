"""The command: `python -m mien_landmarks track|serve|draw|label|fit-mean`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import av

from mien_landmarks import serve, track
from mien_landmarks.geometry import Array, CropSquare, crop_box_of, keypoints_of, most_neutral
from mien_shared.wire.motion import MotionFlags

#: The crop box is the mean over this many frames with a face; it is then fixed for the clip.
FRAMING_FRAMES = 15


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_landmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    make_track = commands.add_parser("track", help="convert clips to one motion track")
    make_track.add_argument("clips", nargs="+", type=Path)
    make_track.add_argument("-o", "--output", type=Path, required=True)
    make_track.add_argument(
        "--absolute", action="store_true", help="Write keypoints in the crop, not motion relative to a frame."
    )
    make_track.add_argument("--ease-s", type=float, default=0.3, help="Length of a join in seconds.")
    make_track.add_argument("--loop", action="store_true", help="Ease the end into the start.")

    make_stream = commands.add_parser("serve", help="read pictures from stdin and write motion packets to stdout")
    make_stream.add_argument("--absolute", action="store_true", help="Send keypoints in the crop, not relative motion.")
    make_stream.add_argument("--unsmoothed", action="store_true", help="Do not smooth: each frame stands for itself.")

    draw = commands.add_parser("draw", help="draw a clip's keypoints and Jacobians over its frames")
    draw.add_argument("clip", type=Path)
    draw.add_argument("-o", "--output", type=Path, required=True, help="Folder for the pictures.")
    draw.add_argument("--every", type=int, default=10, help="Draw every n-th frame.")

    fit = commands.add_parser("fit-mean", help="make mean_face.json from clips, one speaker each")
    fit.add_argument("clips", nargs="+", type=Path)
    fit.add_argument("-o", "--output", type=Path, required=True)

    make_label = commands.add_parser(
        "label", help="convert clips and stills to labelled crops, for training and evaluation"
    )
    make_label.add_argument("sources", nargs="+", type=Path)
    make_label.add_argument(
        "-o", "--output", type=Path, required=True, help="Folder; each source gets its own folder in it."
    )
    make_label.add_argument("--identity", help="Name of the person. Default: the source's name.")
    make_label.add_argument("--segment-frames", type=int, help="Cut clips into sets of this many frames.")

    chosen = parser.parse_args(arguments)
    if chosen.command == "serve":
        return serve.serve(absolute=chosen.absolute, smoothed=not chosen.unsmoothed)
    try:
        if chosen.command == "track":
            write_track(chosen.clips, chosen.output, absolute=chosen.absolute, ease_s=chosen.ease_s, loop=chosen.loop)
        elif chosen.command == "draw":
            from mien_landmarks.drawing import draw_clip

            draw_clip(chosen.clip, chosen.output, chosen.every)
        elif chosen.command == "label":
            from mien_landmarks.label import label

            for source in chosen.sources:
                counts = label(
                    source, chosen.output / source.stem, chosen.identity or source.stem, chosen.segment_frames
                )
                sys.stderr.write(f"{source.name}: {counts} frames\n")
        else:
            write_mean_face(chosen.clips, chosen.output)
    except (track.TrackError, av.FFmpegError, OSError) as error:
        sys.stderr.write(f"mien_landmarks: {error}\n")
        return 1
    return 0


def found_faces(clip: Path) -> tuple[list[Array], list[float]]:
    """Landmarks and times of the clip's frames that show a face. Raises TrackError if none does."""
    from mien_landmarks.mesh import faces_of

    found = [(face.landmarks, face.time_s) for face in faces_of(clip) if face.landmarks is not None]
    if not found:
        raise track.TrackError(f"no face in {clip.name}")
    return [landmarks for landmarks, _ in found], [time_s for _, time_s in found]


def held_box(faces: Sequence[Array]) -> CropSquare:
    """One crop box for a whole clip: the mean of the boxes of its first frames."""
    boxes = [crop_box_of(face) for face in faces[:FRAMING_FRAMES]]
    return CropSquare(
        x=sum(box.x for box in boxes) / len(boxes),
        y=sum(box.y for box in boxes) / len(boxes),
        size=sum(box.size for box in boxes) / len(boxes),
    )


def clip_motion(clip: Path, *, absolute: bool) -> track.Motion:
    """One clip's motion at 30 fps, absolute or relative to the clip's most neutral frame."""
    faces, times_s = found_faces(clip)
    box = held_box(faces)
    framed = [box.to_crop(face) for face in faces]
    motion = track.smoothed(track.motion_of([keypoints_of(face) for face in framed]), times_s)
    if not absolute:
        motion = track.relative(motion, track.keypoints_at(motion, most_neutral(framed)))
    return track.resampled(motion, times_s)


def write_track(clips: Sequence[Path], output: Path, *, absolute: bool, ease_s: float, loop: bool) -> None:
    motions = [clip_motion(clip, absolute=absolute) for clip in clips]
    motion = track.joined(motions, round(ease_s * track.FRAMES_PER_SECOND), loop=loop)
    output.write_bytes(track.packed(motion, MotionFlags.ABSOLUTE if absolute else MotionFlags.NONE))


def write_mean_face(clips: Sequence[Path], output: Path) -> None:
    from mien_landmarks.mean_face import fit_mean_face

    mean = fit_mean_face([found_faces(clip)[0] for clip in clips])
    output.write_text("{\n" + ",\n".join(f'"{i}": {json.dumps(point)}' for i, point in mean.items()) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
