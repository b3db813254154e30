"""The command: `python -m mien_speakers voice|speaker|step`. Use it with clips whose licence allows it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from mien_judgement.clip import FoundMotion, found_in, pictures_of
from mien_landmarks import track
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_shared.media.pace import Pace, usual_rate
from mien_shared.wire.track import MotionTrack, MotionTrackError
from mien_speakers.join import FRAME_SAMPLES, cut, joined
from mien_speakers.loudness import TooQuiet, at_loudness
from mien_speakers.shift import NoVoice, Samples, altered
from mien_speakers.sound import NoSound, sound_of, write_opus
from mien_speakers.step import step_of

#: The length of a join, as in the landmark tool.
EASE_FRAMES = round(0.3 * track.FRAMES_PER_SECOND)
LOUDNESS_LUFS = -20.0
BIT_RATE = 24_000
#: The neutral frame of a clip is sought among frames with the mouth as shut as in this share of them.
_SHUT_SHARE = 0.15


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_speakers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    voice = commands.add_parser("voice", help="write the voice for a looped track that the landmark tool made of clips")
    speaker = commands.add_parser("speaker", help="make a looped track of clips with the encoder, and its voice")
    for command in (voice, speaker):
        command.add_argument("clips", nargs="+", type=Path)
        command.add_argument("--track", type=Path, required=True, help="The motion track: read, or written.")
        command.add_argument("-o", "--output", type=Path, required=True, help="The voice: Opus in Ogg.")
        command.add_argument("--pitch-hz", type=float, required=True, help="Median pitch of the voice.")
        command.add_argument("--formants", type=float, required=True, help="Factor for the formants' frequencies.")
        command.add_argument("--late-s", type=float, default=0.0, help="How much the clips' sound is late.")
    step = commands.add_parser("step", help="print how well a voice is in step with a track")
    step.add_argument("track", type=Path)
    step.add_argument("voice", type=Path)

    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "speaker":
            write_track(chosen.clips, chosen.track)
        if chosen.command != "step":
            write_voice(chosen)
        found = step_of(MotionTrack.load(chosen.track), sound_of(_voice_of(chosen)))
    except (track.TrackError, MotionTrackError, NoSound, NoVoice, TooQuiet, av.FFmpegError, OSError) as error:
        sys.stderr.write(f"mien_speakers: {error}\n")
        return 1
    sys.stdout.write(
        f"{chosen.track.name}: correlation of mouth and voice {found.unmoved:.2f}, at best {found.correlation:.2f} with"
        f" the voice {1000 * found.voice_late_s:.0f} ms later than the mouth\n"
    )
    return 0


def _voice_of(chosen: argparse.Namespace) -> Path:
    path: Path = chosen.voice if chosen.command == "step" else chosen.output
    return path


def write_track(clips: Sequence[Path], output: Path) -> None:
    """Write the looped track of clips that show one face in every frame. Raises TrackError."""
    motion = track.joined([_clip_motion(clip) for clip in clips], EASE_FRAMES, loop=True)
    output.write_bytes(track.packed(motion))


def _clip_motion(clip: Path) -> track.Motion:
    """A clip's motion at 30 fps, relative to its most neutral frame."""
    found = found_in(pictures_of(clip))
    if not np.isfinite(found.rows).all():
        raise track.TrackError(f"{clip.name} does not show a face in every frame")
    held = found.held()
    motion = track.smoothed(held.rows, list(held.times_s))
    neutral = _most_neutral(held)
    return track.resampled(track.relative(motion, Keypoints.from_rows(motion[neutral])), list(held.times_s))


def _most_neutral(found: FoundMotion) -> int:
    """The frame that is nearest to the usual pose, among those with the mouth shut."""
    opening = found.rows[:, FaceKeypoint.LOWER_LIP, 1] - found.rows[:, FaceKeypoint.UPPER_LIP, 1]
    distance = np.abs(found.rows - np.median(found.rows, axis=0)).mean(axis=(1, 2))
    distance[opening > np.quantile(opening, _SHUT_SHARE)] = np.inf
    return int(distance.argmin())


def write_voice(chosen: argparse.Namespace) -> None:
    """Write the voice of a looped track. Raises TrackError if the track was not made of these clips."""
    sounds: list[Samples] = []
    for clip in chosen.clips:
        frames = _frames_of(clip)
        sound = at_loudness(altered(sound_of(clip), chosen.pitch_hz, chosen.formants), LOUDNESS_LUFS)
        sounds.append(cut(sound, chosen.late_s, frames))
    voice = joined(sounds, EASE_FRAMES)
    packets = len(MotionTrack.load(chosen.track).packets)
    if len(voice) != packets * FRAME_SAMPLES:
        raise track.TrackError(
            f"{chosen.track.name} has {packets} frames, its clips {len(voice) // FRAME_SAMPLES}: it was made of others"
        )
    write_opus(chosen.output, at_loudness(voice, LOUDNESS_LUFS), BIT_RATE)


def _frames_of(clip: Path) -> int:
    """How many frames a clip has at a track's rate, from its first picture to its last."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        pace = Pace(usual_rate(stream.average_rate, stream.guessed_rate))
        times_s = [pace.at_s(frame.time) for frame in container.decode(stream)]
    return len(track.resampled(np.zeros((len(times_s), 1, 1)), times_s))


if __name__ == "__main__":
    sys.exit(main())
