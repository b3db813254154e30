"""The avatar store, in a folder or an object store: a 1280x720 still picture and a record of the face in it.

Gateways write, generators read. Pictures are never sent through Redis.
"""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from pathlib import Path

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url
from pydantic import BaseModel, ConfigDict, Field

from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

PICTURE_WIDTH, PICTURE_HEIGHT = 1280, 720

_AVATAR_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AvatarNotFound(LookupError):
    """No stored avatar has this id."""


class AvatarStoreError(RuntimeError):
    """The store failed, for example: disk full, no permission, no answer."""


class AvatarKind(StrEnum):
    """The kind of an avatar. It decides which tiers of a generator can draw the avatar."""

    PORTRAIT = "portrait"  # a picture with a face
    MODEL = "model"  # a 3D head


class FaceBox(BaseModel):
    """The square face crop in the still picture, in pixels."""

    model_config = ConfigDict(frozen=True)

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    size: int = Field(ge=64)


#: One keypoint in JSON: x, y, j00, j01, j10, j11.
KeypointRow = tuple[float, float, float, float, float, float]


class AvatarRecord(BaseModel):
    """The data that is stored for an avatar in addition to its picture.

    kind: a record without a kind is a portrait. width, height: size of the still picture. keypoints: ten rows of x, y,
    j00, j01, j10, j11 in the crop, [-1, 1].
    """

    model_config = ConfigDict(frozen=True)

    avatar_id: str
    kind: AvatarKind = AvatarKind.PORTRAIT
    width: int
    height: int
    face_box: FaceBox
    keypoints: list[KeypointRow] = Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)

    def source_keypoints(self) -> Keypoints:
        """The avatar's ten keypoints in its crop."""
        return Keypoints.from_rows(self.keypoints)


class AvatarStore:
    """Avatars by id. Each has one object for the picture (PNG) and one for the record (JSON)."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str) -> AvatarStore:
        """Open a store.

        `file:PATH` or `file:///PATH` is a folder, created if it is missing. obstore reads other URLs (s3://...).
        """
        if url.startswith("file:"):
            folder = Path(url.removeprefix("file:").removeprefix("//")).resolve()
            return cls(LocalStore(prefix=folder, automatic_cleanup=True, mkdir=True))
        return cls(from_url(url))

    async def put(self, record: AvatarRecord, png: bytes) -> None:
        """Store an avatar: first the picture, then the record, so that every record has its picture.

        Raises AvatarStoreError.
        """
        _check(record.avatar_id)
        try:
            await self._store.put_async(_picture(record.avatar_id), png)
            await self._store.put_async(_record(record.avatar_id), record.model_dump_json().encode())
        except (BaseError, OSError) as error:
            await self._forget_picture(record.avatar_id)
            raise AvatarStoreError("the avatar could not be stored") from error

    async def _forget_picture(self, avatar_id: str) -> None:
        """Delete a picture that has no record: a full disk needs the space, and no later call would delete it."""
        try:
            await self.record(avatar_id)
        except AvatarNotFound:
            with contextlib.suppress(BaseError, OSError):
                await self._store.delete_async(_picture(avatar_id))
        except AvatarStoreError:
            pass

    async def record(self, avatar_id: str) -> AvatarRecord:
        """The avatar's record; raises AvatarNotFound or AvatarStoreError."""
        return AvatarRecord.model_validate_json(await self._get(avatar_id, _record(avatar_id)))

    async def picture(self, avatar_id: str) -> bytes:
        """The still picture as PNG; raises AvatarNotFound or AvatarStoreError."""
        return await self._get(avatar_id, _picture(avatar_id))

    async def delete(self, avatar_id: str) -> None:
        """Delete picture and record; raises AvatarNotFound or AvatarStoreError."""
        await self.record(avatar_id)
        try:
            await self._store.delete_async([_record(avatar_id), _picture(avatar_id)])
        except (BaseError, OSError) as error:
            raise AvatarStoreError("the avatar could not be deleted") from error

    async def _get(self, avatar_id: str, path: str) -> bytes:
        _check(avatar_id)
        try:
            result = await self._store.get_async(path)
            return bytes(await result.bytes_async())
        except (NotFoundError, FileNotFoundError) as error:
            raise AvatarNotFound(f"there is no avatar {avatar_id}") from error
        except (BaseError, OSError) as error:
            raise AvatarStoreError("the avatar could not be read") from error


def _check(avatar_id: str) -> None:
    """Raise AvatarNotFound for an id that is not safe as a part of a path."""
    if not _AVATAR_ID.fullmatch(avatar_id):
        raise AvatarNotFound("an avatar id has 1 to 64 letters, digits, '-' and '_'")


def _picture(avatar_id: str) -> str:
    return f"{avatar_id}/picture.png"


def _record(avatar_id: str) -> str:
    return f"{avatar_id}/avatar.json"
