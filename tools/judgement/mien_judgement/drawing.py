"""Plots L2 over a clip, and draws what viewers see in rejected frames. No picture of the clip is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mien_encoder.judgement import FrameVerdict, Judged, Judgement, JudgementPolicy
from mien_encoder.smoothing import DeadZones, OneEuro
from mien_generator.face.contract import AvatarFace, FaceRequest
from mien_generator.face.warp import WarpGenerator
from mien_generator.motion.shoulders import hold_shoulders
from mien_judgement.clip import FoundMotion
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags

mpl.use("agg")

#: Time after a rejection until the default motion is fully shown (bridging and easing); earlier frames are not drawn.
_COMING_S = 0.5
_REJECTED, _LOST, _L2 = "#e8b4a0", "#c9c9c9", "#1f4e79"


@dataclass(frozen=True, slots=True, eq=False)
class JudgedClip:
    """Every frame of a clip, smoothed as by `mien send`: with the judgement, and with every frame accepted."""

    times_s: NDArray[np.float64]
    judged: Sequence[Judged]
    unjudged: Sequence[Judged]

    def share(self, verdict: FrameVerdict) -> float:
        return sum(judged.verdict is verdict for judged in self.judged) / len(self.judged)

    def spans(self, verdict: FrameVerdict) -> list[tuple[int, int]]:
        """(first frame, last frame + 1) of every run of a verdict."""
        marks = np.array([0] + [int(judged.verdict is verdict) for judged in self.judged] + [0])
        edges = np.flatnonzero(np.diff(marks))
        return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def judge(clip: FoundMotion, source: Keypoints) -> JudgedClip:
    judgement, unjudged = Judgement(source), Judgement(source, JudgementPolicy(tau=float("inf")))
    smoother = DeadZones(OneEuro())
    entries: list[tuple[Judged, Judged]] = []
    for frame, time_s in enumerate(clip.times_s):
        found = clip.at(frame)
        if found is None:
            smoother.reset()
        else:
            found = Keypoints.from_rows(smoother.filter(clip.rows[frame], time_s))
        entries.append((judgement.judge(found, time_s), unjudged.judge(found, time_s)))
    return JudgedClip(clip.times_s, [entry[0] for entry in entries], [entry[1] for entry in entries])


def plot(clips: Mapping[str, JudgedClip], output: Path) -> None:
    """Plot L2 over time with tau, the rejected spans and the initial frames; one panel per clip."""
    figure, panels = plt.subplots(
        len(clips), 1, figsize=(12, 3.4 * len(clips)), dpi=110, layout="constrained", squeeze=False
    )
    for panel, (title, clip) in zip(panels[:, 0], clips.items(), strict=True):
        _panel(panel, title, clip)
    panels[-1, 0].set_xlabel("seconds")
    panels[0, 0].legend(loc="upper left", fontsize=8, framealpha=0.9)
    figure.savefig(output)
    plt.close(figure)


def _panel(axes: Axes, title: str, clip: JudgedClip) -> None:
    policy = JudgementPolicy()
    values = np.array([np.nan if judged.l2 is None else judged.l2 for judged in clip.judged])
    new = [i for i, judged in enumerate(clip.judged) if judged.flags & MotionFlags.NEW_INITIAL_FRAME]
    axes.plot(clip.times_s, values, color=_L2, lw=1.0, label="L2 (eq. 2: alpha 2, beta 1)")
    axes.axhline(policy.tau, color="#b03a2e", lw=1.2, label=f"tau = {policy.tau:g}")
    axes.axhline(policy.release * policy.tau, color="#b03a2e", lw=0.9, ls=":", label="fit again below")
    shades = ((FrameVerdict.REJECTED, _REJECTED, "rejected"), (FrameVerdict.LOST, _LOST, "no face"))
    for verdict, colour, label in shades:
        for number, (first, end) in enumerate(clip.spans(verdict)):
            last_s = clip.times_s[min(end, len(clip.times_s) - 1)]
            axes.axvspan(clip.times_s[first], last_s, color=colour, lw=0, label=label if number == 0 else None)
    axes.plot(clip.times_s[new], values[new], "^", color="#2e7d32", ms=7, label="new initial frame", clip_on=False)
    top = 1.1 * max(policy.tau, float(np.nanmax(values)))
    rejected = f"{clip.share(FrameVerdict.REJECTED):.1%} rejected"
    axes.set(title=f"{title}: {rejected}", ylabel="L2", xlim=(0, clip.times_s[-1]), ylim=(0, top))


def pictures(clip: JudgedClip, avatar: AvatarFace, moments: int, output: Path) -> None:
    """Draw the avatar at moments in the rejected spans, in two rows: every frame accepted, and with the judgement."""
    frames = _moments(clip, moments)
    generator = WarpGenerator()
    prepared = generator.prepare(avatar)
    figure, axes = plt.subplots(
        2, len(frames), figsize=(2.4 * len(frames), 5.1), dpi=110, layout="constrained", squeeze=False
    )
    for column, frame in enumerate(frames):
        for row, entries in enumerate((clip.unjudged, clip.judged)):
            driving = entries[frame].motion.applied_to(avatar.keypoints)
            (face,) = generator.animate([FaceRequest(prepared, hold_shoulders(avatar.keypoints, driving))])
            axes[row, column].imshow(face)
            axes[row, column].set(xticks=[], yticks=[])
        axes[0, column].set_title(
            f"{clip.times_s[frame]:.1f} s, L2 = {clip.judged[frame].l2 or np.nan:.2f}", fontsize=9
        )
    axes[0, 0].set_ylabel("without the judgement", fontsize=9)
    axes[1, 0].set_ylabel("with it", fontsize=9)
    figure.savefig(output)
    plt.close(figure)


def _moments(clip: JudgedClip, count: int) -> list[int]:
    """The worst frame of each of the longest rejected spans, after _COMING_S of the span, in order of time."""
    spans = sorted(clip.spans(FrameVerdict.REJECTED), key=lambda span: span[0] - span[1])[:count]
    come = round(_COMING_S / float(np.median(np.diff(clip.times_s))))
    settled = [range(first + come, end) if end > first + come else range(end - 1, end) for first, end in spans]
    return sorted(max(frames, key=lambda frame: clip.judged[frame].l2 or 0.0) for frames in settled)
