"""What an engine and the device say to each other. One device serves many engines.

An engine asks for a session's face and goes on with other work. The device answers twice: `begun` when it takes the
request into a batch, and `made` or `failed` when the batch is done. Until it has begun, a newer request of the same
session replaces the older one, so that a face always shows the newest motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from mien_generator.face.contract import AvatarFace, FacePicture
from mien_shared.keypoints import Keypoints


class DeviceLost(RuntimeError):
    """The device cannot make faces now. Sessions continue on the last tier, which needs no device."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for one face.

    session: number of the session within its engine. ticket: number of the request. tier: the tier
    that makes the face. prepared: what `prepare` returned for this avatar and tier. driving: keypoints in the avatar's
    crop. deadline_s: monotonic time after which viewers see a gap; the earliest deadline goes first. slot: where a
    device in another process writes the face (`slots.py`).
    """

    session: int
    ticket: int
    tier: int
    prepared: Any
    driving: Keypoints
    deadline_s: float
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A face that was made. started_s, done_s: when its batch began and ended, monotonic."""

    picture: FacePicture
    started_s: float
    done_s: float


class Answers(Protocol):
    """What an engine hears from the device. Called from a thread of the device; none of the calls may wait."""

    def begun(self, asks: Sequence[Ask]) -> None:
        """A batch has taken these requests. They cannot be replaced any more."""

    def made(self, ask: Ask, made: Made) -> None:
        """A face is done. A picture in shared memory is valid until the session's second next request."""

    def failed(self, ask: Ask, error: str) -> None:
        """This request's face cannot be made, although the device works."""

    def lost(self, reason: str) -> None:
        """The device is gone, with all requests and all prepared avatars."""


class Device(Protocol):
    """What an engine may ask of the device. Any thread may call it; none of the calls waits."""

    def prepare(self, avatar: AvatarFace, tier: int, ahead: bool) -> Future[Any]:
        """Prepare an avatar for a tier. ahead: only while there is nothing else to do.

        The future raises FaceRefused if there is no room for the avatar, DeviceLost if the device is gone.
        """

    def ask(self, request: Ask) -> None:
        """Ask for a face. Replaces a request of the same session that no batch has taken yet."""

    def withdraw(self, session: int) -> None:
        """Forget the session's request, if no batch has taken it yet."""

    def forget(self, session: int) -> None:
        """The session is gone, with its request."""
