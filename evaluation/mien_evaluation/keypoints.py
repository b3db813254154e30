"""Where keypoints come from: the system's own encoder, an imported model's detector, or labels beside a clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mien_encoder.crop import CropSquare, crop_wish, cut
from mien_encoder.finder import FaceFinder
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder
from mien_encoder.smoothing import Smoother
from mien_encoder.tracker import LOST_PRESENCE, FaceTracker
from mien_evaluation.clips import ClipError, clip_length, clip_pictures, clip_rate
from mien_evaluation.reenactment import DrivingFrame
from mien_generator.face.contract import RgbArray
from mien_generator.face.picture import scaled
from mien_shared.keypoints import Keypoints

#: Where in a whole picture the face's crop lies; None where there is no face.
Framing = Callable[[RgbArray], CropSquare | None]


class KeypointFinder(Protocol):
    """Finds keypoints in crops."""

    def find(self, pictures: Sequence[RgbArray]) -> Sequence[Keypoints | None]:
        """For each (256, 256, 3) crop; None where there is no face."""


class EncoderFinder:
    """KeypointFinder on the encoder that senders run."""

    def __init__(self, encoder: KeypointEncoder) -> None:
        self.encoder = encoder

    def find(self, pictures: Sequence[RgbArray]) -> list[Keypoints | None]:
        """None where the encoder's presence says that a tracker would have lost the face."""
        return [
            face.keypoints if face.presence >= LOST_PRESENCE else None for face in self.encoder.encode_all(pictures)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """A face in a frame: its crop in the frame's pixels, and its keypoints in that crop."""

    square: CropSquare
    keypoints: Keypoints


def tracked(encoder: KeypointEncoder, finder: FaceFinder) -> Framing:
    """The crop that a sender's tracker begins with: MTCNN's, corrected by the keypoints found in it."""

    def framing(rgb: RgbArray) -> CropSquare | None:
        face = FaceTracker(encoder, finder).find(rgb, 0.0)
        return face.box if face is not None else None

    return framing


def framed(finder: FaceFinder) -> Framing:
    """The crop of the largest face, by the framing convention, from MTCNN's box alone."""

    def framing(rgb: RgbArray) -> CropSquare | None:
        faces = finder.find(rgb)
        return CropSquare.around(crop_wish(faces[0])) if faces else None

    return framing


def whole(rgb: RgbArray) -> CropSquare:
    """The largest square about the centre: for clips that are face crops already, as FOMM prepares VoxCeleb."""
    height, width = rgb.shape[:2]
    size = min(height, width)
    return CropSquare((width - size) / 2, (height - size) / 2, size)


def found_in(rgb: RgbArray, square: CropSquare, finder: KeypointFinder, name: str) -> FoundFace:
    """The face of one picture; raises ClipError where the crop holds none."""
    (keypoints,) = finder.find([cut(rgb, square, CROP_SIZE)])
    if keypoints is None:
        raise ClipError(f"no face in the crop of {name}")
    return FoundFace(square, keypoints)


def followed(path: Path, tracker: FaceTracker, smoother: Smoother) -> list[FoundFace | None]:
    """Every frame's face as a sender's tracker finds it, the crop following a head that leaves it, and smoothed.

    smoother: one without delay.
    """
    rate = clip_rate(path)
    found: list[FoundFace | None] = []
    for number, rgb in enumerate(clip_pictures(path)):
        time_s = float(number / rate)
        face = tracker.find(rgb, time_s)
        if face is None:
            smoother.reset()
            found.append(None)
            continue
        rows = smoother.filter(face.keypoints.rows().astype(np.float64), time_s)
        found.append(FoundFace(face.box, Keypoints.from_rows(rows)))
    return found


def held(path: Path, square: CropSquare, finder: KeypointFinder) -> list[FoundFace | None]:
    """Every frame's face in one crop."""
    found: list[FoundFace | None] = []
    for rgb in clip_pictures(path):
        (keypoints,) = finder.find([cut(rgb, square, CROP_SIZE)])
        found.append(FoundFace(square, keypoints) if keypoints is not None else None)
    return found


class FilmedClip:
    """A DrivingClip from a video or a folder of pictures: cropped where its first face is, and held there."""

    def __init__(self, path: Path, size: int, finder: KeypointFinder, framing: Framing) -> None:
        self._path = path
        self._size = size
        self._finder = finder
        self._framing = framing

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def identity(self) -> str:
        return identity_of(self._path)

    def count(self) -> int:
        """Raises ClipError."""
        return clip_length(self._path)

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        """From the first frame with a face on; raises ClipError where there is none."""
        square: CropSquare | None = None
        to_skip = 0
        for rgb in clip_pictures(self._path):
            if to_skip:
                to_skip -= 1
                continue
            started = square is not None
            square = square or self._framing(rgb)
            if square is None:
                continue
            crop = cut(rgb, square, self._size)
            small = crop if self._size == CROP_SIZE else cut(rgb, square, CROP_SIZE)
            (keypoints,) = self._finder.find([small])
            if keypoints is None and not started:  # the two disagree on whether this is a face
                square = None
                continue
            to_skip = every - 1
            yield DrivingFrame(crop, keypoints)
        if square is None:
            raise ClipError(f"no face in {self.name}")


class LabelledClip:
    """A DrivingClip from a labelled set, as `mien_landmarks label` writes it: frames.npy and keypoints.npy, meta.json.

    Its keypoints are a landmark detector's; its framing is the convention's, held for the whole set.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """Raises ClipError where the folder is no labelled set."""
        self._size = size
        self._name = folder.name
        try:
            self._identity = str(json.loads((folder / "meta.json").read_bytes())["identity"])
            self._frames = np.load(folder / "frames.npy", mmap_mode="r")
            self._keypoints = np.load(folder / "keypoints.npy")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ClipError(f"{folder.name} is no labelled set") from error
        if not len(self._frames) or self._keypoints.shape != (len(self._frames), 10, 6):
            raise ClipError(f"{folder.name}: its keypoints are not those of its {len(self._frames)} frames")

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._identity

    def count(self) -> int:
        return len(self._frames)

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        for picture, rows in zip(self._frames[::every], self._keypoints[::every], strict=True):
            yield DrivingFrame(scaled(np.array(picture), self._size), Keypoints.from_rows(rows))


def identity_of(path: Path) -> str:
    """Who a clip shows, by its name.

    In FOMM's VoxCeleb layout (id10280#videoid#from#to.mp4) what stands before the first #; else the name without a
    number or a letter at its end: talk_01.mp4, talk_02.mp4 and talk_b.mp4 are one person.
    """
    name = path.name if path.is_dir() else path.stem
    if "#" in name:
        return name.split("#", 1)[0]
    stem, _, end = name.rpartition("_")
    return stem if stem and (end.isdecimal() or (len(end) == 1 and end.isalpha())) else name
