"""The avatar store on a real folder and on S3, by the same calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from mien_shared.avatars import AvatarNotFound, AvatarRecord, AvatarStore, AvatarStoreError, FaceBox
from mien_shared.keypoints import Keypoints

pytestmark = pytest.mark.integration


def avatar(avatar_id: str = "a1") -> AvatarRecord:
    rows = [tuple(float(value) for value in row) for row in Keypoints.at_rest().rows()]
    box = FaceBox(x=448, y=100, size=384)
    return AvatarRecord.model_validate(
        {"avatar_id": avatar_id, "width": 1280, "height": 720, "face_box": box, "keypoints": rows}
    )


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[AvatarStore]:
    """A bucket behind a real S3 endpoint on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        settings = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
        for name, value in (settings | {"ENDPOINT": endpoint}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        httpx.put(f"{endpoint}/mien-test", trust_env=False).raise_for_status()
        yield AvatarStore.open("s3://mien-test/avatars")
    finally:
        server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AvatarStore:
    if request.param == "folder":
        return AvatarStore.open(f"file:{tmp_path}/avatars")
    s3_store: AvatarStore = request.getfixturevalue("s3")
    return s3_store


async def test_what_is_put_is_found_until_it_is_deleted(store: AvatarStore) -> None:
    await store.put(avatar(), b"png")
    assert await store.record("a1") == avatar()
    assert await store.picture("a1") == b"png"
    assert (await store.record("a1")).source_keypoints() == Keypoints.at_rest()
    await store.delete("a1")
    for call in (store.record("a1"), store.picture("a1"), store.delete("a1")):
        with pytest.raises(AvatarNotFound, match=r"^there is no avatar a1$"):
            await call


@pytest.mark.parametrize("avatar_id", ["..", "../a1", "a/b", "", "a" * 65, "a1\n", "a1/picture.png"])
async def test_an_id_never_leaves_its_folder(store: AvatarStore, avatar_id: str) -> None:
    for call in (store.record(avatar_id), store.picture(avatar_id), store.delete(avatar_id)):
        with pytest.raises(AvatarNotFound, match=r"^an avatar id has 1 to 64 letters, digits, '-' and '_'$"):
            await call


async def test_avatars_outlive_the_process_that_stored_them(tmp_path: Path) -> None:
    await AvatarStore.open(f"file://{tmp_path}/avatars").put(avatar(), b"png")
    assert await AvatarStore.open(f"file:{tmp_path}/avatars").picture("a1") == b"png"


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars" / "a1").write_text("a file where a folder should be")
    with pytest.raises(AvatarStoreError, match=r"^the avatar could not be stored$"):
        await store.put(avatar(), b"png")


async def test_an_avatar_that_cannot_be_written_anew_stays_what_it_was(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    await store.put(avatar(), b"png")
    folder = tmp_path / "avatars" / "a1"
    (folder / "picture.png").unlink()
    (folder / "picture.png").mkdir()  # nothing can be put there
    with pytest.raises(AvatarStoreError):
        await store.put(avatar(), b"other")
    assert await store.record("a1") == avatar()


async def test_a_picture_whose_record_cannot_be_written_does_not_stay(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars" / "a1" / "avatar.json" / "in the way").mkdir(parents=True)
    with pytest.raises(AvatarStoreError):
        await store.put(avatar(), b"png")
    assert not (tmp_path / "avatars" / "a1" / "picture.png").exists()


async def test_a_bucket_that_is_not_there_is_an_error_of_the_store(s3: AvatarStore) -> None:
    with pytest.raises(AvatarStoreError, match=r"^the avatar could not be stored$"):
        await AvatarStore.open("s3://mien-no-such-bucket/avatars").put(avatar(), b"png")
