"""The avatar store, in a folder or an object store: a 1280x720 still picture and a record of the face in it.

Gateways write, generators read. Pictures are never sent through Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
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


class ConsentKind(StrEnum):
    """Whose face an uploaded picture shows, and that its use is allowed."""

    SELF = "self"  # the person who uploads it
    GRANTED = "granted"  # another person, who agreed
    DRAWN = "drawn"  # no real person: a drawing, or a face that a computer made


class Consent(BaseModel):
    """What the uploader of a picture has said about the consent of the person in it.

    name: of the person, as the uploader wrote it; None if none was given. said_by: the principal that uploaded the
    picture, which is in the audit log too. said_at_ms: Unix milliseconds.
    """

    model_config = ConfigDict(frozen=True)

    kind: ConsentKind
    name: str | None = None
    said_by: str
    said_at_ms: int


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
    j00, j01, j10, j11 in the crop, [-1, 1]. consent: None for a bundled avatar, and where an upload need not state it.
    """

    model_config = ConfigDict(frozen=True)

    avatar_id: str
    kind: AvatarKind = AvatarKind.PORTRAIT
    width: int
    height: int
    face_box: FaceBox
    keypoints: list[KeypointRow] = Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)
    consent: Consent | None = None

    def source_keypoints(self) -> Keypoints:
        """The avatar's ten keypoints in its crop."""
        return Keypoints.from_rows(self.keypoints)


@dataclass(frozen=True, slots=True)
class StoredAvatar:
    """What the store's listing says of an avatar. Times are Unix seconds.

    used_unix_s: when the avatar was last marked as used, or created. is_whole: False if picture or record is missing:
    an upload or a deletion is under way, or failed half way.
    """

    avatar_id: str
    created_unix_s: float
    used_unix_s: float
    is_whole: bool


class AvatarStore:
    """Avatars by id. Each has an object for the picture (PNG), one for the record (JSON), and maybe one that marks use.

    folder: the folder of a store on disk, None for an object store.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, url: str) -> AvatarStore:
        """Open a store.

        `file:PATH` or `file:///PATH` is a folder, created if it is missing. obstore reads other URLs (s3://...).
        """
        if url.startswith("file:"):
            folder = Path(url.removeprefix("file:").removeprefix("//")).resolve()
            return cls(LocalStore(prefix=folder, automatic_cleanup=True, mkdir=True), folder)
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
        """Delete everything of an avatar, the picture first, so that no failure can keep the face.

        A call that failed half way can be repeated. Raises AvatarNotFound if nothing of the avatar is left, or
        AvatarStoreError.
        """
        _check(avatar_id)
        try:
            found = [await self._delete(path) for path in _objects(avatar_id)]
            found.append(await asyncio.to_thread(self._delete_folder, avatar_id))
        except (BaseError, OSError) as error:
            raise AvatarStoreError("the avatar could not be deleted") from error
        if not any(found):
            raise AvatarNotFound(f"there is no avatar {avatar_id}")

    async def _delete(self, path: str) -> bool:
        """Delete an object; False if there is none. S3 does not tell, so it is asked first."""
        try:
            await self._store.head_async(path)
            await self._store.delete_async(path)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def _delete_folder(self, avatar_id: str) -> bool:
        """Delete what a killed process left in the avatar's folder: parts of files that no listing shows."""
        if self._folder is None or not (self._folder / avatar_id).is_dir():
            return False
        shutil.rmtree(self._folder / avatar_id)
        return True

    async def mark_used(self, avatar_id: str) -> None:
        """Note that the avatar is in use now; raises AvatarStoreError. The mark holds no data, only its time counts."""
        _check(avatar_id)
        try:
            await self._store.put_async(_used(avatar_id), b"")
        except (BaseError, OSError) as error:
            raise AvatarStoreError("the avatar's use could not be noted") from error

    async def stored(self) -> list[StoredAvatar]:
        """All avatars in the order of their ids, with those that are not whole; raises AvatarStoreError."""
        times_unix_s: dict[str, dict[str, float]] = {}
        try:
            for entry in await self._store.list().collect_async():
                avatar_id, _, name = entry["path"].partition("/")
                times_unix_s.setdefault(avatar_id, {})[name] = entry["last_modified"].timestamp()
            for avatar_id, changed_unix_s in await asyncio.to_thread(lambda: list(self._folders())):
                times_unix_s.setdefault(avatar_id, {"": changed_unix_s})
        except (BaseError, OSError) as error:
            raise AvatarStoreError("the avatars could not be listed") from error
        return [_stored(name, times) for name, times in sorted(times_unix_s.items()) if _AVATAR_ID.fullmatch(name)]

    def _folders(self) -> Iterable[tuple[str, float]]:
        """Every avatar's folder and when it changed: one may hold only parts of files, which no listing shows."""
        for path in self._folder.iterdir() if self._folder is not None else ():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_dir():
                    yield path.name, path.stat().st_mtime

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


def _used(avatar_id: str) -> str:
    return f"{avatar_id}/used"


def _objects(avatar_id: str) -> tuple[str, ...]:
    """Everything that an avatar has in the store, in the order in which it is deleted: the face first."""
    return _picture(avatar_id), _record(avatar_id), _used(avatar_id)


def _stored(avatar_id: str, times_unix_s: dict[str, float]) -> StoredAvatar:
    """From the time of each object, by its name in the avatar's folder."""
    picture, record, used = (path.partition("/")[2] for path in _objects(avatar_id))
    created_unix_s = times_unix_s.get(record, min(times_unix_s.values()))
    return StoredAvatar(
        avatar_id,
        created_unix_s,
        max(created_unix_s, times_unix_s.get(used, 0.0)),
        is_whole=picture in times_unix_s and record in times_unix_s,
    )
