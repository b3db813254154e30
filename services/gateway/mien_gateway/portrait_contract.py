"""The messages between the gateway and the process that decodes uploads. Imports no picture library.

Request: u32 length, the file. Answer: u32 length and an Answer as JSON, u32 length and the PNG (empty if refused).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, AvatarRecord, Consent, FaceBox
from mien_shared.keypoints import Keypoints

LENGTH = struct.Struct("<I")


class Refusal(StrEnum):
    """Why an upload is refused. Names and values are those of the problem codes."""

    NOT_AN_IMAGE = "not-an-image"
    UNSUPPORTED_FORMAT = "unsupported-format"
    ANIMATED_IMAGE = "animated-image"
    TRUNCATED_IMAGE = "truncated-image"
    TOO_MANY_PIXELS = "too-many-pixels"
    TOO_MUCH_MEMORY = "too-much-memory"
    NO_FACE = "no-face"
    FACE_TOO_SMALL = "face-too-small"


class PictureRefused(ValueError):
    """The upload cannot become an avatar. The text is for the client."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Portrait:
    """The result of an upload: the still picture as PNG, its crop box, and the face's keypoints in the crop."""

    png: bytes
    face_box: FaceBox
    keypoints: Keypoints

    def record(self, avatar_id: str, consent: Consent | None) -> AvatarRecord:
        """The record of an avatar with this portrait."""
        return AvatarRecord(
            avatar_id=avatar_id,
            width=PICTURE_WIDTH,
            height=PICTURE_HEIGHT,
            face_box=self.face_box,
            keypoints=[tuple(row) for row in self.keypoints.rows().tolist()],
            consent=consent,
        )


class Answer(BaseModel):
    """The answer for one picture: a refusal, or a face whose picture follows."""

    refusal: Refusal | None = None
    detail: str = ""
    face_box: FaceBox | None = None
    keypoints: list[list[float]] = []
