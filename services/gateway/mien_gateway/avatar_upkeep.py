"""Notes which avatars are in use, and deletes those that are unused for too long or that were never whole."""

from __future__ import annotations

import logging

from mien_gateway.avatars import Avatars, uploaded
from mien_shared.avatars import AvatarStore, AvatarStoreError, StoredAvatar
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock
from mien_shared.http.problems import Code, Problem

logger = logging.getLogger(__name__)

INTERVAL_S = 600.0
#: An upload is stored within seconds. What is not whole after this time was left by a process that was killed.
UNFINISHED_S = 3600.0


def is_due(avatar: StoredAvatar, now_unix_s: float, unused_s: float) -> bool:
    """Whether an avatar is to be deleted. unused_s: how long an avatar may be unused, 0 for any time."""
    if not avatar.is_whole:
        return now_unix_s - avatar.used_unix_s > UNFINISHED_S
    return 0 < unused_s < now_unix_s - avatar.used_unix_s


class AvatarUpkeep:
    """One step of a loop; several gateways may run it at once. Uses are marks in the store: they outlive Redis."""

    def __init__(self, store: AvatarStore, avatars: Avatars, registry: Registry, unused_s: float, clock: Clock) -> None:
        self._store = store
        self._avatars = avatars
        self._registry = registry
        self._unused_s = unused_s
        self._clock = clock

    async def step(self) -> None:
        """Mark the avatars of all live sessions as used, and delete those that are due; raises the errors of Redis.

        A failing store is left for the next step.
        """
        in_use = {session.avatar_id for session in await self._registry.sessions()}
        try:
            for avatar in uploaded(await self._store.stored()):
                if avatar.is_whole and avatar.avatar_id in in_use:
                    await self._mark(avatar.avatar_id)
                elif is_due(avatar, self._clock.unix_s(), self._unused_s):
                    await self._erase(avatar.avatar_id)
        except AvatarStoreError as error:
            logger.warning("the upkeep of the avatars failed", extra={"error": str(error)})

    async def _mark(self, avatar_id: str) -> None:
        if self._unused_s:
            await self._store.mark_used(avatar_id)

    async def _erase(self, avatar_id: str) -> None:
        try:
            await self._avatars.erase(avatar_id, by=None)
        except Problem as problem:
            if problem.code is not Code.AVATAR_NOT_FOUND:  # another gateway was faster
                logger.warning("an avatar could not be deleted", extra={"error": problem.detail})
