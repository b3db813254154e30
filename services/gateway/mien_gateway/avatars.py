"""Avatars: uploaded, listed, shown and deleted. `avatar_routes.py` has the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import Request
from pydantic import BaseModel

from mien_gateway import audit, consent
from mien_gateway.access import Access
from mien_gateway.avatar_owners import may_use, new_avatar_id, owner_in, owner_of
from mien_gateway.bundled import bundled_name, is_bundled
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.portrait_contract import PictureRefused, Portrait
from mien_gateway.portrait_process import PortraitFailed, PortraitProcess
from mien_gateway.settings import GatewaySettings
from mien_gateway.uploads import UploadBudget, read_upload
from mien_shared.avatars import (
    AvatarKind,
    AvatarNotFound,
    AvatarRecord,
    AvatarStore,
    AvatarStoreError,
    Consent,
    FaceBox,
    KeypointRow,
    StoredAvatar,
)
from mien_shared.bus.registry import Registry
from mien_shared.bus.rooms import Rooms
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.http.problems import Code, Problem, redis_problems

#: Ends the live sessions that show an avatar, on behalf of a principal; returns how many there were.
EndSessions = Callable[[str, Principal | None], Awaitable[int]]


class Avatar(BaseModel):
    """An avatar. Its face box is in the 1280x720 still picture.

    keypoints: ten rows of x, y, j00, j01, j10, j11 in the face box, [-1, 1]. They are the source pose; a sender chooses
    its initial frame close to it. consent: what the uploader said about the person in the picture; null for a bundled
    avatar, and for an upload to a demo that said nothing.
    """

    avatar_id: str
    kind: AvatarKind
    width: int
    height: int
    face_box: FaceBox
    keypoints: list[KeypointRow]
    consent: Consent | None

    @classmethod
    def of(cls, record: AvatarRecord) -> Avatar:
        return cls(**record.model_dump())


class ListedAvatar(BaseModel):
    """An avatar as the list shows it. expires_at_ms: when it is deleted if no session uses it before; null: never.

    name: of a bundled avatar, which shows a drawn person; null for an uploaded picture.
    """

    avatar_id: str
    name: str | None
    created_at_ms: int
    used_at_ms: int
    expires_at_ms: int | None


class AvatarList(BaseModel):
    avatars: list[ListedAvatar]


class Avatars:
    """The operations behind the routes."""

    def __init__(
        self,
        settings: GatewaySettings,
        store: AvatarStore,
        registry: Registry,
        access: Access,
        metrics: GatewayMetrics,
        clock: Clock,
        end_sessions: EndSessions,
    ) -> None:
        self.store = store
        self._end_sessions = end_sessions
        self._registry = registry
        self._rooms = Rooms(registry.redis)
        self._access = access
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._budget = UploadBudget(settings.max_uploads, settings.upload_budget_bytes)
        self._creating = 0
        self._portraits = PortraitProcess(
            settings.portrait_timeout_s, settings.portrait_memory_bytes, settings.max_pixels
        )

    async def upload(self, request: Request) -> AvatarRecord:
        """Make an avatar from an operator's or a participant's picture; raises Problem."""
        by = self._access.upload(request)
        try:
            record = await self._upload(request, by, await self._owner(by, uploads=True))
        except Problem as problem:
            self._metrics.avatar_uploaded(problem.code)
            raise
        self._metrics.avatar_uploaded("created")
        audit.avatar_created(by, record.avatar_id, record.consent)
        return record

    async def _owner(self, by: Principal, uploads: bool = False) -> str | None:
        """The participant as an owner of avatars, None for an operator. Raises Problem if it is not in its room.

        uploads: it must have been let in, so that strangers in a lobby store nothing.
        """
        if by.room is None:
            return None
        async with redis_problems():
            room = await self._rooms.read(by.room)
        own = room.participants.get(by.scope or "")
        if room.record is None or own is None:
            raise Problem(Code.PARTICIPANT_NOT_FOUND, "there is no such participant, or it has left the room")
        if uploads and not own.is_admitted:
            raise self._access.not_admitted()
        return owner_of(room.record, own)

    async def _upload(self, request: Request, by: Principal, owner: str | None) -> AvatarRecord:
        with self._budget.upload() as share:
            self._creating += 1
            try:
                await self._demand_room(owner)
                form = await read_upload(request, self._settings, share)
                said = consent.stated(form, by, self._clock.unix_s())
                consent.demand_taken(said, by, self._settings.photographs)
                portrait = await self._portrait(form.picture)
                record = portrait.record(new_avatar_id(owner), said)
                async with _store_problems():
                    await self.store.put(record, portrait.png)
                return record
            finally:
                self._creating -= 1

    async def _demand_room(self, owner: str | None) -> None:
        """Raises Problem 409 if the avatars in the store and the uploads in progress here are more than allowed."""
        most, own_most = self._settings.max_avatars, self._settings.max_avatars_per_participant
        if not most and owner is None:
            return
        async with _store_problems():
            avatars = uploaded(await self.store.stored())
        if most and len(avatars) + self._creating > most:
            raise Problem(Code.AVATAR_LIMIT, f"there may be at most {most} avatars")
        if owner is not None and sum(owner_in(avatar.avatar_id) == owner for avatar in avatars) >= own_most:
            raise Problem(Code.AVATAR_LIMIT, f"a participant may have at most {own_most} pictures; delete one first")

    async def _portrait(self, data: bytes) -> Portrait:
        started_s = self._clock.monotonic_s()
        try:
            return await self._portraits.make(data)
        except PictureRefused as error:
            raise Problem(Code[error.refusal.name], error.detail) from error
        except PortraitFailed as error:
            raise Problem(Code.PROCESSING_FAILED, str(error)) from error
        finally:
            self._metrics.avatar_processed(self._clock.monotonic_s() - started_s)

    async def listed(self, by: Principal) -> list[ListedAvatar]:
        """All avatars that are whole, or those of them that a participant may use; raises Problem."""
        owner = await self._owner(by)
        async with _store_problems():
            whole = [avatar for avatar in await self.store.stored() if avatar.is_whole]
        return [self._listed(avatar) for avatar in whole if owner is None or may_use(owner, avatar.avatar_id)]

    def _listed(self, avatar: StoredAvatar) -> ListedAvatar:
        unused_s = 0 if is_bundled(avatar.avatar_id) else self._settings.avatar_unused_s
        return ListedAvatar(
            avatar_id=avatar.avatar_id,
            name=bundled_name(avatar.avatar_id),
            created_at_ms=int(avatar.created_unix_s * 1000),
            used_at_ms=int(avatar.used_unix_s * 1000),
            expires_at_ms=int((avatar.used_unix_s + unused_s) * 1000) if unused_s else None,
        )

    async def erase_for(self, by: Principal, avatar_id: str) -> None:
        """Delete an avatar on behalf of an operator, or of the participant that uploaded it; raises Problem."""
        owner = await self._owner(by)
        if owner is not None and owner_in(avatar_id) != owner:
            raise self._access.not_granted("a participant deletes only pictures that it uploaded itself")
        await self.erase(avatar_id, by)

    async def erase(self, avatar_id: str, by: Principal | None) -> None:
        """Delete the avatar, then end the sessions that show it: their generators keep the face in memory.

        If a part fails, the next call does the rest. Raises Problem: 404 only if there was nothing left to do.
        """
        async with _store_problems():
            try:
                await self.store.delete(avatar_id)
                was_stored = True
            except AvatarNotFound:
                was_stored = False
        async with redis_problems():
            ended = await self._end_sessions(avatar_id, by)
        if not was_stored and not ended:
            raise avatar_not_found()
        audit.avatar_deleted(by, avatar_id)

    async def record(self, avatar_id: str, request: Request) -> AvatarRecord:
        """The record, for those who may see the picture: a sender in a room needs its keypoints. Raises Problem."""
        await self._demand_shown(request, avatar_id)
        return await stored_avatar(self.store, avatar_id)

    async def picture(self, avatar_id: str, request: Request) -> bytes:
        """The still picture as PNG, for operators and for bearers of a token whose session uses it; raises Problem."""
        await self._demand_shown(request, avatar_id)
        async with _store_problems():
            return await self.store.picture(avatar_id)

    async def _demand_shown(self, request: Request, avatar_id: str) -> None:
        principal = self._access.watcher(request)
        async with redis_problems():
            if not await self._shown_to(principal, avatar_id):
                raise Problem(Code.TOKEN_NOT_GRANTED, "the token's session or room does not show this avatar")

    async def _shown_to(self, principal: Principal, avatar_id: str) -> bool:
        """Whether the caller may see an avatar: an operator, or one whose session or room shows it.

        Participants may also see what they may use.
        """
        if principal.scope is None:
            return True
        if principal.room is None:
            session = await self._registry.session(principal.scope)
            return session is not None and session.avatar_id == avatar_id
        room = await self._rooms.read(principal.room)
        participants = room.participants
        own = participants.get(principal.scope)
        if own is None or room.record is None:
            return False
        if may_use(owner_of(room.record, own), avatar_id):
            return True
        visible = participants.values() if own.is_admitted else [own]
        return any(one.avatar_id == avatar_id for one in visible)

    async def aclose(self) -> None:
        await self._portraits.aclose()


def uploaded(avatars: list[StoredAvatar]) -> list[StoredAvatar]:
    """Those that count towards the limit and can expire: all but the bundled ones."""
    return [avatar for avatar in avatars if not is_bundled(avatar.avatar_id)]


@asynccontextmanager
async def _store_problems() -> AsyncIterator[None]:
    try:
        yield
    except AvatarNotFound as error:
        raise avatar_not_found() from error
    except AvatarStoreError as error:
        raise Problem(Code.AVATAR_STORE_UNAVAILABLE, str(error)) from error


def avatar_not_found() -> Problem:
    return Problem(Code.AVATAR_NOT_FOUND, "there is no avatar with this id")


async def stored_avatar(store: AvatarStore, avatar_id: str) -> AvatarRecord:
    """An avatar's record; raises Problem."""
    async with _store_problems():
        return await store.record(avatar_id)
