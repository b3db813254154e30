"""Helpers for tests that break whole stacks."""

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

#: Start a stack: Run(generators=..., generator_env=..., env_of=...).
Run = Callable[..., AbstractAsyncContextManager[System]]
#: Add the running test to the report: fault, what the viewer saw, how long.
Note = Callable[[str, str, str], None]


#: Long tests: `make failure` runs them, `make test` does not.
full_only = pytest.mark.skipif("MIEN_FAILURE_FULL" not in os.environ, reason="a long test: only in `make failure`")


def setting(name: str, default: float) -> float:
    """A duration or a count. `make failure` sets large values; `make test` uses the small default."""
    return float(os.environ.get(name, default))


async def bundled_face(system: System) -> FaceBox:
    """The box of the bundled avatar's face in the picture."""
    async with MienClient(system.stack.url) as mien:
        return (await mien.avatar(BUNDLED_AVATAR)).face_box


async def holder_of(system: System, session: Session) -> str:
    """The name of the generator that holds the session. There must be no other session."""
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
    """Wait until every running service is ready. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        running = set(system.stack.services) - set(system.stack.ended())
        while {await system.readiness(name) for name in running} != {200}:
            await asyncio.sleep(0.05)
