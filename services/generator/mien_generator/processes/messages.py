"""What the host, its workers and its device tell each other, four times a second or when something happens.

Nothing here is on the way of a frame: faces cross in shared memory (`device/slots.py`), requests for them as bytes of
fixed form (`device/wire.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mien_generator.measure import Measurement


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()


class Machine(_Message):
    """Device to host, once: what this machine can run, and how fast. The host gives it to its workers.

    tiers: (name, backend) of each tier of portraits, the best first; only the last one needs no device. shares_cores:
    the device is the CPU. fallback: (label, text) if `auto` does not run the network.
    """

    kind: Literal["machine"] = "machine"
    tiers: list[tuple[str, str]]
    shares_cores: bool
    h264_encoder: str
    speed: Measurement
    fallback: tuple[Literal["weights", "runtime"], str] | None = None


class Unusable(_Message):
    """Device to host: this machine cannot make faces. A restart would not help."""

    kind: Literal["unusable"] = "unusable"
    reason: str


class DeviceStatus(_Message):
    """Device to host: how much longer batches take than when they were measured."""

    kind: Literal["device_status"] = "device_status"
    load_factor: float


class Load(_Message):
    """One session, as the policy of the tiers sees it (`engine/tiers.py`). since_s: monotonic."""

    session_id: str
    tier: int
    wanted_fps: float
    drawn_fps: float
    since_s: float


class WorkerStatus(_Message):
    """Worker to host: its sessions, and why it cannot serve.

    session_ids: all its sessions. loads: those whose tier the host may change. places: sessions that it offers now.
    has_device: whether it is connected to the device. fatal: what only a new worker repairs. unready: what may pass.
    """

    kind: Literal["worker_status"] = "worker_status"
    generator_id: str
    session_ids: list[str]
    loads: list[Load]
    places: int
    is_overloaded: bool
    has_device: bool
    fatal: dict[str, str]
    unready: dict[str, str]

    @property
    def sessions(self) -> int:
        return len(self.session_ids)


class Orders(_Message):
    """Host to worker, four times a second. steps: sessions that change their tier. first_tier: of the next new session.

    places: most sessions that the worker holds. All running workers together offer all places of the generator.
    """

    kind: Literal["orders"] = "orders"
    steps: dict[str, int]
    first_tier: int
    places: int


class DeviceHangs(_Message):
    """Worker to host: a face was asked for, and nothing has come for seconds."""

    kind: Literal["device_hangs"] = "device_hangs"


class UseDevice(_Message):
    """Host to worker, with a descriptor: the worker's connection to the device."""

    kind: Literal["use_device"] = "use_device"


class ServeWorker(_Message):
    """Host to device, with a descriptor: the device's connection to another worker."""

    kind: Literal["serve_worker"] = "serve_worker"


class MoveAway(_Message):
    """Host to worker: hand this many sessions over to other generators, because another worker is free."""

    kind: Literal["move_away"] = "move_away"
    sessions: int


class Stop(_Message):
    """Host to worker or device: hand over what you have, and end."""

    kind: Literal["stop"] = "stop"


class Scrape(_Message):
    """Host to worker or device: send your metrics."""

    kind: Literal["scrape"] = "scrape"
    number: int


class Scraped(_Message):
    """The answer to a Scrape: metrics in Prometheus' text format. After its last frame a worker sends it unasked."""

    kind: Literal["scraped"] = "scraped"
    number: int
    text: str


class WorkerStart(_Message):
    """What a worker needs to know. places: most sessions that it holds at first."""

    machine: Machine
    places: int
    redis_url: str


Role = Literal["worker", "device"]


class Fork(_Message):
    """Host to the warm process, with a descriptor for the new process' link: start another process."""

    kind: Literal["fork"] = "fork"
    role: Role
    start: WorkerStart | None = None


class Forked(_Message):
    """The warm process to the host: the process was started. pid: 0 if it could not be started."""

    kind: Literal["forked"] = "forked"
    pid: int


class Ended(_Message):
    """The warm process to the host: a process has ended. status: its exit status, or minus the signal's number."""

    kind: Literal["ended"] = "ended"
    pid: int
    status: int


Message = Annotated[
    Machine
    | Unusable
    | DeviceStatus
    | WorkerStatus
    | DeviceHangs
    | Orders
    | UseDevice
    | ServeWorker
    | MoveAway
    | Stop
    | Scrape
    | Scraped
    | Fork
    | Forked
    | Ended,
    Field(discriminator="kind"),
]
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def parse(data: bytes) -> Message:
    """Read one message. Raises pydantic.ValidationError."""
    return _MESSAGE.validate_json(data)
