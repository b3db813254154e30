"""Finds faces with the encoder itself: it looks at a grid of crops, then frames the best of them again and again.

The JavaScript is clients/js/encoder/finder.js, with the same grid, order and thresholds; decision 25 says where they
come from. K tolerates a crop that is 1.25 times too large or too small, and one that is off by 0.3 of its size; its
keypoints then lead to the right crop in one step. So two sizes, and steps of half a crop, cover the picture.

K also claims what is no face, for it was not trained on such crops. A face stays where it is, also in a crop that is a
little too large, too small or off, and its keypoints lie as those of a face. Other claims wander.

    scanning --all of the grid seen--> confirming --every claim is confirmed or dropped--> ended
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mien_encoder.crop import CropSquare, RgbArray, cut
from mien_encoder.framing import change_of, fit_layout, framing_of, is_usable
from mien_encoder.keypoints import CROP_SIZE, EncodedFace, KeypointEncoder

#: Time from the beginning of a search to that of the next one.
SEARCH_INTERVAL_S = 0.4
#: Sides of the grid's crops as shares of the picture's shorter side.
SIZES = (1.0, 0.45)
#: Steps of the grid, at most, as a share of a crop's side.
_STEP = 0.5
#: A smaller crop cannot lead to one of the least usable size.
_SMALLEST_LOOK_PX = 20.0
#: How many crops of the grid are looked at in one picture of a video. One look takes about 1.3 ms.
LOOKS_A_PICTURE = 4
#: Below this a crop of the grid shows nothing that framing could turn into a face.
_CLAIM_PRESENCE = 0.05
#: How many claims of a scan are followed up.
_MOST_CLAIMS = 3
#: A face is confirmed by these looks in a row, each of a crop that is moved by a share of the claim's side to the right
#: and down, and then grown...
_CONFIRMING_LOOKS = ((0.0, 0.0, 1.0), (0.0, 0.0, 1.18), (0.0, 0.0, 0.85), (-0.12, 0.0, 1.0), (0.0, 0.12, 1.0))
#: ... in which its keypoints lie as those of a face (see LayoutFit) and lead back to the claim (see Change).
_CONFIRMED_PRESENCE = 0.7
_MOST_MISFIT = 0.07
_MOST_SHIFT = 0.02
_MOST_GROWTH = 0.1
#: A claim is dropped when so many looks in a row deny it, or when so many in all have not confirmed it.
_MOST_DENIALS = 4
_MOST_LOOKS = 16
#: How many crops of a still picture are encoded in one run: each takes a few megabytes.
_BATCH = 8


class FaceFinder(Protocol):
    """Searches a picture for faces."""

    def find(self, rgb: RgbArray, time_s: float) -> list[CropSquare]:
        """Crops of the faces in the (H, W, 3) RGB picture, captured at time_s, largest first; mostly none."""


@dataclass(slots=True)
class _Claim:
    """A crop that may show a face, how many looks in a row have said so or denied it, and how many there were."""

    box: CropSquare
    presence: float
    confirmed: int = 0
    denied: int = 0
    looks: int = 0

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed >= len(_CONFIRMING_LOOKS)

    def next_look(self) -> CropSquare:
        right, down, growth = _CONFIRMING_LOOKS[self.confirmed % len(_CONFIRMING_LOOKS)]
        x, y = self.box.centre
        return CropSquare.around(x + right * self.box.size, y + down * self.box.size, growth * self.box.size)


def grid_of(width: int, height: int, sizes: Sequence[float] = SIZES) -> list[CropSquare]:
    """The crops of the grid for a picture, one size after the other, but for those with too few pixels for a face.

    sizes: sides of the crops as shares of the picture's shorter side.
    """
    squares = []
    for size in (share * min(width, height) for share in sizes):
        if size < _SMALLEST_LOOK_PX:
            continue
        columns = _places(width - size, _STEP * size)
        squares += [CropSquare(x, y, size) for y in _places(height - size, _STEP * size) for x in columns]
    return squares


def _places(length: float, step: float) -> list[float]:
    """Places from 0 to `length`, evenly spaced by at most `step`; the middle if there is no length."""
    gaps = math.ceil(length / step)
    return [length * i / gaps for i in range(gaps + 1)] if gaps else [length / 2]


class Search:
    """One search: which crops to look at next, and what the looks have shown. Pure."""

    def __init__(self, width: int, height: int, sizes: Sequence[float] = SIZES) -> None:
        self._width = width
        self._height = height
        self._grid = grid_of(width, height, sizes)
        self._claims: list[_Claim] = []
        self._asked: list[CropSquare] = []
        self._scanning = bool(self._grid)

    @property
    def ended(self) -> bool:
        return not self._scanning and all(claim.is_confirmed for claim in self._claims)

    @property
    def found(self) -> list[CropSquare]:
        """Confirmed faces, largest first; none until the search has ended."""
        boxes = [claim.box for claim in self._claims] if self.ended else []
        faces: list[CropSquare] = []
        for box in sorted(boxes, key=lambda box: box.size, reverse=True):
            if not any(_is_same_face(face, box) for face in faces):  # two claims may lead to one face
                faces.append(box)
        return faces

    def looks(self, most: int) -> list[CropSquare]:
        """The crops to look at now: at most `most` of the grid, or every claim. Empty when the search has ended."""
        if self._scanning:
            self._asked, self._grid = self._grid[:most], self._grid[most:]
        else:
            self._asked = [] if self.ended else [claim.next_look() for claim in self._claims]
        return self._asked

    def saw(self, faces: Sequence[EncodedFace]) -> None:
        """What the encoder says of each crop of the last `looks`."""
        if self._scanning:
            for square, face in zip(self._asked, faces, strict=True):
                box = framing_of(fit_layout(face.keypoints), square)
                if face.presence >= _CLAIM_PRESENCE and self._is_usable(box):
                    self._add(_Claim(box, face.presence))
            self._scanning = bool(self._grid)
            return
        for claim, square, face in zip(self._claims, self._asked, faces, strict=True):
            _judge(claim, square, face)
        self._claims = [claim for claim in self._claims if self._is_kept(claim)]

    def _add(self, claim: _Claim) -> None:
        """Keep the best claims. Of several claims for one face the best stays."""
        others = [other for other in self._claims if not _is_same_face(other.box, claim.box)]
        same = [other for other in self._claims if _is_same_face(other.box, claim.box)]
        best = max([*same, claim], key=lambda one: one.presence)
        self._claims = sorted([*others, best], key=lambda one: one.presence, reverse=True)[:_MOST_CLAIMS]

    def _is_kept(self, claim: _Claim) -> bool:
        is_open = claim.denied < _MOST_DENIALS and claim.looks < _MOST_LOOKS
        return (is_open or claim.is_confirmed) and self._is_usable(claim.box)

    def _is_usable(self, box: CropSquare) -> bool:
        return is_usable(box, self._width, self._height)


def _judge(claim: _Claim, square: CropSquare, face: EncodedFace) -> None:
    """Take a look at a claim, in `square`, into account, and frame it again."""
    fit = fit_layout(face.keypoints)
    box = framing_of(fit, square)
    change = change_of(claim.box, box)
    is_steady = change.shift <= _MOST_SHIFT and change.growth <= _MOST_GROWTH
    is_face = face.presence >= _CONFIRMED_PRESENCE and fit.misfit <= _MOST_MISFIT and is_steady
    claim.box = box
    claim.confirmed = claim.confirmed + 1 if is_face else 0
    claim.denied = 0 if is_face else claim.denied + 1
    claim.looks += 1


def _is_same_face(a: CropSquare, b: CropSquare) -> bool:
    """Whether two crops show the same face: their centres are closer than a third of the larger one."""
    return math.dist(a.centre, b.centre) < max(a.size, b.size) / 3


def faces_in(rgb: RgbArray, encoder: KeypointEncoder, sizes: Sequence[float] = SIZES) -> list[CropSquare]:
    """Search a still picture, (H, W, 3) RGB, to the end: the crops of its faces, largest first."""
    search = Search(rgb.shape[1], rgb.shape[0], sizes)
    while not search.ended:
        search.saw(encoder.encode_all([cut(rgb, square, CROP_SIZE) for square in search.looks(_BATCH)]))
    return search.found


class GridFinder:
    """FaceFinder for live video: a search takes several pictures, so that none costs more than a few looks.

    Not thread-safe.
    """

    def __init__(self, encoder: KeypointEncoder) -> None:
        self._encoder = encoder
        self._search: Search | None = None
        self._began_at_s = -math.inf

    def find(self, rgb: RgbArray, time_s: float) -> list[CropSquare]:
        """Go on with the search in the next picture; returns confirmed faces when it ends."""
        if self._search is None:
            if time_s - self._began_at_s < SEARCH_INTERVAL_S:
                return []
            self._began_at_s = time_s
            self._search = Search(rgb.shape[1], rgb.shape[0])
        search = self._search
        search.saw(self._encoder.encode_all([cut(rgb, look, CROP_SIZE) for look in search.looks(LOOKS_A_PICTURE)]))
        if search.ended:
            self._search = None
        return search.found


class PatientFinder:
    """FaceFinder for recorded video: it searches one picture to the end, so that no picture with a face is missed.

    Not thread-safe.
    """

    def __init__(self, encoder: KeypointEncoder) -> None:
        self._encoder = encoder
        self._searched_at_s = -math.inf

    def find(self, rgb: RgbArray, time_s: float) -> list[CropSquare]:
        if time_s - self._searched_at_s < SEARCH_INTERVAL_S:
            return []
        self._searched_at_s = time_s
        return faces_in(rgb, self._encoder)
