"""Whole stacks to break."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from e2e.system import System

from mien_client.api import MienClient, Session
from mien_client.demo import BUNDLED_AVATAR
from mien_shared.avatars import FaceBox

#: Bring up a stack: Run(generators=..., generator_env=..., env_of=...).
Run = Callable[..., AbstractAsyncContextManager[System]]
#: Note what the running test saw: fault, what the viewer saw, how long.
Note = Callable[[str, str, str], None]


#: What `make test` leaves to `make failure`, which takes its time.
full_only = pytest.mark.skipif("MIEN_FAILURE_FULL" not in os.environ, reason="takes its time: only in `make failure`")


def setting(name: str, default: float) -> float:
    """A length or a count that `make failure` raises and `make test` leaves small."""
    return float(os.environ.get(name, default))


async def bundled_face(system: System) -> FaceBox:
    """Where the bundled avatar's face is in the picture."""
    async with MienClient(system.stack.url) as mien:
        return (await mien.avatar(BUNDLED_AVATAR)).face_box


async def holder_of(system: System, session: Session) -> str:
    """The name of the generator that holds a session, where it holds no other."""
    async with MienClient(system.stack.url) as mien, asyncio.timeout(10):
        while (await mien.session(session.session_id, session.token)).generator is None:
            await asyncio.sleep(0.05)
        while True:
            for name in system.stack.services:
                runs = name.startswith("generator") and name not in system.stack.ended()
                if runs and await system.metric(name, "mien_generator_sessions"):
                    return name
            await asyncio.sleep(0.05)


async def all_ready(system: System, within_s: float) -> None:
    """Wait until every service that runs is ready; raises TimeoutError."""
    async with asyncio.timeout(within_s):
        running = set(system.stack.services) - set(system.stack.ended())
        while {await system.readiness(name) for name in running} != {200}:
            await asyncio.sleep(0.05)
