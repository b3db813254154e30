"""The avatar that comes with Mien, put into the store at every start so that it is there and current."""

from __future__ import annotations

import json
from importlib.resources import files

from mien_shared.avatars import PICTURE_HEIGHT, PICTURE_WIDTH, AvatarNotFound, AvatarRecord, AvatarStore, FaceBox

BUNDLED_AVATAR_ID = "mien"


async def seed(store: AvatarStore) -> None:
    """Store the bundled avatar, over an older one, unless it is there already; raises AvatarStoreError."""
    folder = files(__package__) / "bundled"
    description = folder / f"{BUNDLED_AVATAR_ID}.json"
    if not description.is_file():
        return  # a checkout without the drawing still takes uploads
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
        # A disk that has filled up since is no reason not to serve.
        if await store.record(BUNDLED_AVATAR_ID) == record and await store.picture(BUNDLED_AVATAR_ID) == png:
            return
    except AvatarNotFound:
        pass
    await store.put(record, png)
