"""The bundled avatars: drawn people. Every start stores those that the store lacks or has in another version."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, AvatarNotFound, AvatarRecord, AvatarStore, FaceBox

#: The first of them, which demos show.
BUNDLED_AVATAR_ID = "mien"
_FOLDER = files(__package__) / "bundled"


@cache
def _descriptions() -> dict[str, dict[str, Any]]:
    """What the drawing tool wrote with each picture, by the avatar's id. Empty in a checkout without pictures."""
    if not _FOLDER.is_dir():
        return {}
    found = {path.name.removesuffix(".json"): path for path in _FOLDER.iterdir() if path.name.endswith(".json")}
    return {avatar_id: json.loads(path.read_text()) for avatar_id, path in sorted(found.items())}


def is_bundled(avatar_id: str) -> bool:
    return avatar_id in _descriptions()


def bundled_ids() -> list[str]:
    """The ids of all bundled avatars, in their order."""
    return list(_descriptions())


def bundled_name(avatar_id: str) -> str | None:
    """A bundled avatar's name for people, None for another avatar."""
    described = _descriptions().get(avatar_id)
    return None if described is None else str(described["name"])


async def seed(store: AvatarStore) -> None:
    """Store the bundled avatars unless the store already has these versions; raises AvatarStoreError."""
    for avatar_id in bundled_ids():
        await _seed(store, avatar_id)


async def _seed(store: AvatarStore, avatar_id: str) -> None:
    drawn = _descriptions()[avatar_id]
    record = AvatarRecord(
        avatar_id=avatar_id,
        width=PICTURE_WIDTH,
        height=PICTURE_HEIGHT,
        face_box=FaceBox.model_validate(drawn["crop"]),
        keypoints=drawn["keypoints"],
    )
    png = (_FOLDER / f"{avatar_id}.png").read_bytes()
    try:
        # Write only if needed: a gateway with a full disk can still serve.
        if await store.record(avatar_id) == record and await store.picture(avatar_id) == png:
            return
    except AvatarNotFound:
        pass
    await store.put(record, png)
