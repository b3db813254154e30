"""Problem documents as OpenAPI describes them; mien_shared.problems makes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from mien_shared.problems import MEDIA_TYPE


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
        for status, codes in codes_by_status.items()
    }
