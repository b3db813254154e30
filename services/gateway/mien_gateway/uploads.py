"""The body of an upload, read into memory: never beyond its own limit, nor beyond the budget of all uploads together.

Nothing is written to a temporary file: a folder for them has its own size, and fills up before any limit is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mien_gateway.settings import GatewaySettings
from mien_shared.http.problems import Code, Problem

FIELD = "image"
CONSENT_FIELD = "consent"
CONSENT_NAME_FIELD = "consent_name"


class UploadBudget:
    """What the uploads in progress share: a number of places, and memory for their bodies."""

    def __init__(self, places: int, memory_bytes: int) -> None:
        self._places = places
        self._memory_bytes = memory_bytes

    @contextmanager
    def upload(self) -> Iterator[UploadShare]:
        """Take a place, and memory as the upload needs it, until the context ends; raises Problem 503."""
        if self._places == 0:
            raise Problem(Code.UPLOADS_BUSY, "too many uploads are in progress; try again later")
        self._places -= 1
        share = UploadShare(self)
        try:
            yield share
        finally:
            self._places += 1
            self._memory_bytes += share.taken_bytes

    def take(self, count_bytes: int) -> None:
        """Take memory; raises Problem 503 and takes nothing if less is left."""
        if count_bytes > self._memory_bytes:
            raise Problem(Code.UPLOADS_BUSY, "the uploads in progress need all memory for uploads; try again later")
        self._memory_bytes -= count_bytes


class UploadShare:
    """What one upload has taken of the budget."""

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self.taken_bytes = 0

    def need(self, total_bytes: int) -> None:
        """Make sure that this upload has memory for so many bytes; raises Problem 503."""
        if total_bytes > self.taken_bytes:
            self._budget.take(total_bytes - self.taken_bytes)
            self.taken_bytes = total_bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """The form of an upload: the picture, and what it says about consent (`consent.py`), None where it says nothing."""

    picture: bytes
    consent: str | None
    consent_name: str | None


class _InMemory(MultiPartParser):
    spool_max_size = 0  # tempfile.SpooledTemporaryFile: without a limit, the file is never moved to the disk


async def read_upload(request: Request, settings: GatewaySettings, share: UploadShare) -> Upload:
    """The form of an upload, whether its length is announced or not; raises Problem."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(Code.NOT_MULTIPART, f"send multipart/form-data with the picture in the field '{FIELD}'")
    limit_bytes = settings.max_upload_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        if int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        share.need(int(announced))
    parser = _InMemory(request.headers, _chunks(request, limit_bytes, share), max_files=1, max_fields=8)
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            form = await parser.parse()
            field = form.get(FIELD)
            if not isinstance(field, UploadFile):
                raise Problem(Code.MISSING_IMAGE, f"the form has no file in a field named '{FIELD}'")
            return Upload(await field.read(), _text(form, CONSENT_FIELD), _text(form, CONSENT_NAME_FIELD))
    except TimeoutError as error:
        raise Problem(Code.UPLOAD_TIMEOUT, "the picture took too long to arrive") from error
    except MultiPartException as error:
        raise Problem(Code.MALFORMED_FORM, f"the form cannot be read: {error.message}") from error
    except ClientDisconnect as error:
        raise Problem(Code.UPLOAD_ABORTED, "the client disconnected before the upload was complete") from error


def _text(form: FormData, name: str) -> str | None:
    """A field of the form that is no file; None if there is none, or if it is empty."""
    value = form.get(name)
    return value.strip() or None if isinstance(value, str) else None


async def _chunks(request: Request, limit_bytes: int, share: UploadShare) -> AsyncGenerator[bytes, None]:
    received_bytes = 0
    async for chunk in request.stream():
        received_bytes += len(chunk)
        if received_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        share.need(received_bytes)
        yield chunk


def _too_large(limit_bytes: int) -> Problem:
    return Problem(Code.UPLOAD_TOO_LARGE, f"an upload may have at most {limit_bytes} bytes")
