"""Problem documents as OpenAPI describes them, and Redis' failures as one; mien_shared.http.problems makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, Field

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.http.problems import MEDIA_TYPE, unavailable


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:mien:problem:avatar-not-found"])
    title: str
    status: int
    detail: str


def problems(**codes_by_status: str) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses`: `problems(s404="avatar-not-found: ...")`, each text naming the codes of that status."""
    schema = ProblemDocument.model_json_schema()
    return {
        int(status.removeprefix("s")): {"description": codes, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, codes in sorted(codes_by_status.items())
    }


@asynccontextmanager
async def redis_problems() -> AsyncIterator[None]:
    """Redis' failures as 503."""
    try:
        yield
    except BUS_ERRORS as error:
        raise unavailable("redis-unavailable", "the session registry does not answer") from error
