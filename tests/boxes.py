"""Face boxes of any size: those of the API have a least size, and the compositor is tried below it as well."""

from __future__ import annotations

from mien_shared.avatars import FaceBox


def face_box(x: int, y: int, size: int) -> FaceBox:
    """A box that is not validated."""
    return FaceBox.model_construct(x=x, y=y, size=size)
