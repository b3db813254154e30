"""The FaceGenerator that runs First Order Motion Model: prepares each avatar once, then runs batches across avatars.

Between two calls everything stays on the device: the folded network, the sources of all avatars in one bank, and the
pictures to paste into. A batch is uploaded as keypoints and downloaded as finished rectangles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch

from mien_generator.face.contract import (
    MAX_FACE_SIZE,
    AvatarFace,
    FacePicture,
    FaceRefused,
    FaceRequest,
    RgbArray,
)
from mien_generator.face.fomm.config import ConfigError, FommConfig
from mien_generator.face.fomm.device.bank import BankFull, SourceBank
from mien_generator.face.fomm.device.batches import GRAPH_SIZES, Batches
from mien_generator.face.fomm.device.blocks import Folding, place
from mien_generator.face.fomm.device.devices import DeviceFull, reachable
from mien_generator.face.fomm.device.finish import Finisher, Packing, Placement
from mien_generator.face.fomm.device.network import FoldedGenerator, FoldedSource, SourceLayout, channel_multiple
from mien_generator.face.fomm.device.transfer import Download, Lane
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_generator.face.picture import scaled
from mien_shared.keypoints import NUM_KEYPOINTS, FloatArray, Keypoints

if TYPE_CHECKING:  # a machine that only measures uses random weights and has no safetensors
    from mien_generator.face.fomm.checkpoint import FommWeights

Precision = Literal["float32", "float16", "bfloat16"]

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class GeneratorWeights(Protocol):
    """The part of FommWeights that the generator needs."""

    @property
    def config(self) -> FommConfig: ...

    def generator(self) -> OcclusionAwareGenerator:
        """The network, float32, in eval mode, on the CPU."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PreparedFomm:
    """One avatar on the device. Its memory is freed when the last reference to this object is dropped.

    size: pixels. row: index in the generator's bank. keypoints: of the source, (10, 6) float32, rows as in a packet.
    """

    size: int
    row: int
    keypoints: FloatArray
    placement: Placement | None
    bank: SourceBank


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A submitted batch of faces that is still being made."""

    parts: list[tuple[Download, Packing]]


class FommGenerator:
    """FaceGenerator that runs FOMM's occlusion-aware generator, folded for the device.

    size: side of the faces in pixels, a multiple of the configuration's `size_multiple`.
    precision: number format of the networks; keypoints and motion stay float32. Use float32 on a CPU, float16 or
    bfloat16 on CUDA devices (a CPU with bf16 instructions also runs bfloat16).
    max_batch: most faces in one run; more faces take several runs. batch_sizes: the sizes of a run, ascending; by
    default a few sizes on CUDA, every size on a CPU. max_avatars: most avatars on the device; an avatar that is
    prepared twice is stored once.
    folding: by default chosen for the device. graphs: replay CUDA graphs. compiled: run the network through
    torch.compile, which takes minutes at the start.
    Raises DeviceMissing, DeviceFull, or ConfigError for a size that the network cannot process or a number of keypoints
    that differs from a motion packet's. Not thread-safe: one owner thread per device.
    """

    name = "torch"

    def __init__(
        self,
        weights: GeneratorWeights,
        *,
        size: int = MAX_FACE_SIZE,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        max_batch: int = GRAPH_SIZES[-1],
        batch_sizes: Sequence[int] | None = None,
        max_avatars: int = 512,
        folding: Folding | None = None,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        config = weights.config
        config.check_size(size)
        if config.num_keypoints != NUM_KEYPOINTS:
            raise ConfigError(
                f"the weights have {config.num_keypoints} keypoints, but a motion packet has {NUM_KEYPOINTS}"
            )
        self.size = size
        self.layout = SourceLayout.of(config, size)
        self._device = reachable(device)
        self._dtype = _DTYPES[precision]
        self._lane = Lane(self._device)
        self._finisher = Finisher(size, self._device)
        self._known: WeakValueDictionary[bytes, PreparedFomm] = WeakValueDictionary()
        self.bank = SourceBank(self.layout.numbers, self._dtype, self._device, max_avatars)
        on_cuda = self._device.type == "cuda"
        if folding is None:
            folding = Folding(None, True, channel_multiple(config)) if on_cuda else Folding()
        sizes = batch_sizes or [
            size for size in range(1, max_batch + 1) if size in GRAPH_SIZES or size == max_batch or not on_cuda
        ]
        network = weights.generator()
        try:
            with torch.inference_mode(), self._lane.computing():
                self._source = FoldedSource(network, folding)
                self.network = FoldedGenerator(network, config, self.layout, folding)
                for part in (self._source, self.network):
                    place(part, self._device, self._dtype)
                self._batches: Batches | None = self._allocate_batches(sizes, graphs and on_cuda, compiled)
        except torch.OutOfMemoryError as error:
            raise DeviceFull(
                f"the memory of {device} is too small for this network and batches of {max_batch} faces"
            ) from error

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        size: int = MAX_FACE_SIZE,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        max_batch: int = GRAPH_SIZES[-1],
    ) -> FommGenerator:
        """Load a file written by `mien model import`; raises WeightsError, OSError, or the constructor's errors."""
        from mien_generator.face.fomm.checkpoint import read_weights

        return cls(read_weights(path), size=size, device=device, precision=precision, max_batch=max_batch)

    def prepare(self, avatar: AvatarFace) -> PreparedFomm:
        """Write the source features and the small source picture to the bank (about 6 of 31 G MAC at half width).

        Raises FaceRefused if the bank or the device's memory is full.
        """
        self._open_batches()
        digest = _digest(avatar)
        if (known := self._known.get(digest)) is not None:
            return known
        row = self._take_row()
        try:
            with torch.inference_mode(), self._lane.computing():
                placement = self._finisher.place(avatar.region) if avatar.region is not None else None
                self._fill(row, avatar)
        except BaseException as error:
            self.bank.give_back(row)
            if isinstance(error, torch.OutOfMemoryError):
                raise FaceRefused("the device's memory is too full for another avatar") from error
            raise
        prepared = PreparedFomm(self.size, row, avatar.keypoints.rows(), placement, self.bank)
        finalize(prepared, self.bank.give_back, row)
        self._known[digest] = prepared
        return prepared

    def animate(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> list[FacePicture]:
        """Make all faces; requests may mix avatars. Raises ValueError for a face that another generator prepared."""
        return self.collect(self.submit(requests))

    def submit(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> Ticket:
        """Start to make faces. On a CUDA device this returns at once, and the next batch may be submitted."""
        with torch.inference_mode(), self._lane.computing():
            parts = []
            for batch in self._split(requests):
                placements = [request.prepared.placement for request in batch]
                packed, packing = self._finisher.finish(self._run(batch), placements)
                parts.append((self._lane.download(packed), packing))
            return Ticket(parts)

    def collect(self, ticket: Ticket) -> list[FacePicture]:
        """Wait for the faces of a ticket, in the order of its requests."""
        return [face for download, packing in ticket.parts for face in packing.pictures(download.wait())]

    def predict(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> torch.Tensor:
        """The faces before they are rounded to bytes: (B, 3, size, size) float32 in [0, 1] on the host, B >= 1."""
        with torch.inference_mode(), self._lane.computing():
            return torch.cat([self._run(batch).cpu() for batch in self._split(requests)])

    def close(self) -> None:
        """Free the device's memory, including that of avatars that are still prepared."""
        self._batches = None
        self.bank.clear()
        del self._source, self.network
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _allocate_batches(self, sizes: Sequence[int], graphs: bool, compiled: bool) -> Batches:
        """Allocate buffers for the largest batch; on CUDA also choose all kernels and record all graphs."""
        largest = sizes[-1]
        rows = torch.empty(largest, self.layout.numbers, dtype=self._dtype, device=self._device)
        keypoints = torch.empty(largest, 2, NUM_KEYPOINTS, 6, device=self._device)
        if self._device.type != "cuda":
            return Batches(torch.compile(self.network) if compiled else self.network, rows, keypoints, sizes)
        torch.backends.cudnn.benchmark = True  # there are few shapes, and they run very often
        rows.uniform_()  # realistic numbers: with zeros the kernels would have other times
        keypoints[:] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
        self.network(rows, keypoints)  # times the ways of doubling here, before compiling and recording
        batches = Batches(
            torch.compile(self.network, dynamic=False) if compiled else self.network, rows, keypoints, sizes
        )
        if graphs:
            batches.capture()
        return batches

    def _take_row(self) -> int:
        try:
            return self.bank.take()
        except BankFull as error:
            raise FaceRefused(str(error)) from error

    def _fill(self, row: int, avatar: AvatarFace) -> None:
        picture = picture_tensor(scaled(avatar.rgb, self.size), self._device)
        numbers = self.bank.row(row)
        features, small, residual = self.layout.parts(numbers)
        for part, made in zip((features, small), self._source(picture), strict=True):
            part.copy_(made)
        if self.layout.residual_side:
            at_rest = torch.from_numpy(np.stack([[avatar.keypoints.rows()] * 2])).to(self._device)
            residual.zero_()
            residual.copy_(picture - self.network(numbers, at_rest))

    def _split(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> Iterator[Sequence[FaceRequest[PreparedFomm]]]:
        for request in requests:
            if request.prepared.size != self.size:
                raise ValueError(
                    f"the face was prepared at {request.prepared.size} pixels, but this generator makes {self.size}"
                )
            if request.prepared.bank is not self.bank:
                raise ValueError("the face was prepared by another generator")
        largest = self._open_batches().largest
        for begin in range(0, len(requests), largest):
            yield requests[begin : begin + largest]

    def _run(self, requests: Sequence[FaceRequest[PreparedFomm]]) -> torch.Tensor:
        """The faces of one batch, (B, 3, size, size) float32, valid until the next run."""
        batches = self._open_batches()
        size = batches.padded(len(requests))
        # Pad the batch to the next size by repeating its first face.
        filled = [*requests, *[requests[0]] * (size - len(requests))]
        keypoints = np.stack([(request.prepared.keypoints, request.driving.rows()) for request in filled])
        indices = torch.empty(size, dtype=torch.int64, device=self._device)
        self._lane.upload(torch.tensor([request.prepared.row for request in filled]), indices)
        self._lane.upload(torch.from_numpy(keypoints), batches.keypoints[:size])
        self.bank.gather(indices, batches.rows[:size])
        return batches.run(len(requests))

    def _open_batches(self) -> Batches:
        if self._batches is None:
            raise RuntimeError("the generator is closed")
        return self._batches


class FommKeypointFinder:
    """Runs the keypoint detector in the weights on pictures. float32, because motion is computed from differences."""

    def __init__(self, weights: FommWeights, *, device: str | torch.device = "cpu") -> None:
        self._device = reachable(device)
        self._detector = weights.keypoint_detector().to(self._device)

    def find(self, pictures: Sequence[RgbArray]) -> list[Keypoints]:
        """The keypoints of each picture. pictures: (S, S, 3) uint8 RGB each, all of one size."""
        with torch.inference_mode():
            batch = torch.cat([picture_tensor(picture, self._device) for picture in pictures])
            return self._detector(batch).unstack()


def picture_tensor(rgb: RgbArray, device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].float() / 255


def _digest(avatar: AvatarFace) -> bytes:
    """A digest of the avatar's picture, keypoints and region: equal avatars have equal digests."""
    digest = hashlib.blake2b(repr(avatar.rgb.shape).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(avatar.rgb).data)
    digest.update(avatar.keypoints.rows().data)
    if (region := avatar.region) is not None:
        digest.update(repr((region.shape, region.x, region.y, region.size)).encode())
        digest.update(np.ascontiguousarray(region.still).data)
    return digest.digest()
