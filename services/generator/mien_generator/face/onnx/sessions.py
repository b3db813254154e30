"""A network opened in ONNX Runtime: graphs from their files, parameters made from the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.weights import MismatchedWeights
from mien_generator.face.onnx.arithmetic import NotCalibrated
from mien_generator.face.onnx.files import ModelFiles, Part
from mien_generator.face.onnx.graph import Graph
from mien_generator.face.onnx.network import animate_graph, prepare_graph

#: auto: int8 on a CPU where the model was calibrated, else float32.
Precision = Literal["auto", "float32", "int8"]

#: ONNX Runtime's providers for each device; what a provider cannot run goes to the CPU.
_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
#: ONNX Runtime's own errors have no base class but Exception.
_REFUSED = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)


class ProviderMissing(RuntimeError):
    """A device that this build of ONNX Runtime does not run on."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Both halves of the generator. Sizes share it: a graph takes pictures of any side that the configuration allows.

    precision: what it computes in. device: cpu, cuda or tensorrt.
    """

    config: FommConfig
    precision: Literal["float32", "int8"]
    device: str
    prepare: Session
    animate: Session

    @classmethod
    def open(
        cls, files: ModelFiles, *, device: str = "cpu", precision: Precision = "auto", threads: int = 0
    ) -> Network:
        """threads: of the CPU; 0 takes one for each core.

        Raises ProviderMissing, NotCalibrated, or MismatchedWeights for a graph of another network.
        """
        kind, _, index = device.partition(":")
        providers = _providers(kind, index)
        ranges = files.ranges
        if precision == "auto":
            precision = "int8" if kind == "cpu" and ranges is not None else "float32"
        config, arrays = files.weights.config, files.weights.arrays
        if precision == "int8":
            if ranges is None:
                raise NotCalibrated(f"{files.name} was never calibrated: run `mien model calibrate`")
            part: Part = "animate-int8"
            animate = animate_graph(config, arrays, ranges).graph
        else:
            part = "animate"
            animate = animate_graph(config, arrays).graph
        return cls(
            config,
            precision,
            device,
            Session.open(files, "prepare", prepare_graph(config, arrays), providers, threads),
            Session.open(files, part, animate, providers, threads),
        )


class Session:
    """One graph that runs: arrays in by name, arrays out by name."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    @classmethod
    def open(cls, files: ModelFiles, part: Part, made: Graph, providers: list[Any], threads: int) -> Session:
        """A graph file, with the parameters of the graph that is made from the weights now."""
        name = f"{files.name}.{part}.onnx"
        try:
            session = onnxruntime.InferenceSession(
                files.graphs[part], session_options(made, threads), providers=providers
            )
        except _REFUSED as error:
            raise MismatchedWeights(f"{name} is no graph for these weights: {error}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        if metadata.get("config") != files.weights.config.to_json():
            raise MismatchedWeights(f"{name} is the graph of another configuration than the weights'")
        return cls(session)


def session_options(graph: Graph, threads: int) -> onnxruntime.SessionOptions:
    """Options with a graph's parameters in place of the external data that its file declares."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # shapes that it cannot infer, at every start
    # Threads that wait for the next frame would take the encoders' cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A keypoint's bell far away from it is a denormal number, and those are slow.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    names = list(graph.parameters)
    options.add_external_initializers(
        names, [onnxruntime.OrtValue.ortvalue_from_numpy(graph.parameters[name]) for name in names]
    )
    return options


def _providers(kind: str, index: str) -> list[Any]:
    wanted = _PROVIDERS.get(kind)
    if wanted is None:
        raise ProviderMissing(f"the onnx engine runs on cpu, cuda or tensorrt, not on {kind!r}")
    if wanted[0] not in onnxruntime.get_available_providers():
        raise ProviderMissing(f"this ONNX Runtime has no {wanted[0]}: pip install onnxruntime-gpu")
    options = {"device_id": index} if index else {}
    return [(name, options if name != "CPUExecutionProvider" else {}) for name in wanted]
