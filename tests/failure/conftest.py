"""Fixtures: whole stacks for the failure tests, and the report of their results."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from e2e.system import System
from failure.report import Report, Row
from failure.stacks import Note, Run

from mien_client.launcher import Stack, StackOptions
from mien_shared.bus.embedded_redis import EmbeddedRedis


@pytest.fixture
def run_system(redis_server: EmbeddedRedis) -> Run:
    @asynccontextmanager
    async def run(
        generators: int = 1,
        generator_env: dict[str, str] | None = None,
        env_of: dict[str, dict[str, str]] | None = None,
    ) -> AsyncIterator[System]:
        # env_of may name another REDIS_URL for each service. Nothing uses redis_server then.
        options = StackOptions(
            gateway_port=0,
            signaling_port=0,
            redis_url=redis_server.url,
            generators=generators,
            # A fixed capacity: the speed that a busy machine measures must not decide the result.
            generator_env={"MIEN_CAPACITY": "6", **(generator_env or {})},
            env_of=env_of or {},
        )
        async with Stack(options) as stack:
            try:
                yield System(stack, redis_server)
            except BaseException:
                for name in stack.services:
                    print(f"--- {name}\n{stack.log_tail(name)}")
                raise

    return run


@pytest.fixture(scope="session")
def report() -> Report:
    path = os.environ.get("MIEN_FAILURE_REPORT")
    return Report(Path(path).absolute() if path else None)


@pytest.fixture
def note(request: pytest.FixtureRequest, report: Report) -> Note:
    def write(fault: str, seen: str, lasted: str) -> None:
        name = request.node.name
        selector = name.replace("[", " and ").replace("]", "")
        row = Row(fault, seen, lasted, f'-k "{selector}"')
        report.add(f"{Path(str(request.node.fspath)).stem}/{name}", row)

    return write


@pytest.fixture
def root_only() -> None:
    """Skip the test without root: it changes mounts or networks."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and network namespaces")
