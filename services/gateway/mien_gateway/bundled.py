"""The bundled avatar. Every start stores it if the store has none or another version."""

from __future__ import annotations

import json
from importlib.resources import files

from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, AvatarNotFound, AvatarRecord, AvatarStore, FaceBox

BUNDLED_AVATAR_ID = "mien"


async def seed(store: AvatarStore) -> None:
    """Store the bundled avatar unless the store already has this version; raises AvatarStoreError."""
    folder = files(__package__) / "bundled"
    description = folder / f"{BUNDLED_AVATAR_ID}.json"
    if not description.is_file():
        return  # a checkout without the bundled avatar works for uploads
    drawn = json.loads(description.read_text())
    record = AvatarRecord(
        avatar_id=BUNDLED_AVATAR_ID,
        width=PICTURE_WIDTH,
        height=PICTURE_HEIGHT,
        face_box=FaceBox.model_validate(drawn["crop"]),
        keypoints=drawn["keypoints"],
    )
    png = (folder / f"{BUNDLED_AVATAR_ID}.png").read_bytes()
    try:
        # Write only if needed: a gateway with a full disk can still serve.
        if await store.record(BUNDLED_AVATAR_ID) == record and await store.picture(BUNDLED_AVATAR_ID) == png:
            return
    except AvatarNotFound:
        pass
    await store.put(record, png)
