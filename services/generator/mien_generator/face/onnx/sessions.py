"""Opens a network in ONNX Runtime: graphs from their files, parameters computed from the weights."""

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

#: auto: int8 for a calibrated model on a CPU, otherwise float32.
Precision = Literal["auto", "float32", "int8"]

#: ONNX Runtime's providers for each device, in order of preference; the next one runs what a provider cannot.
_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
#: ONNX Runtime's errors have no common base class except Exception.
_REFUSED = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)


class ProviderMissing(RuntimeError):
    """This build of ONNX Runtime cannot use the device."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Both graphs of the generator, for all sizes: a graph takes pictures of any size that the configuration allows.

    precision: number format of the convolutions. device: cpu, cuda or tensorrt, with an optional index as in cuda:1.
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
        """Open both graphs. threads: CPU threads to use; 0 means one for each core.

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
                raise NotCalibrated(f"{files.name} is not calibrated for int8: run `mien model calibrate`")
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
    """One opened graph. `run` takes and returns arrays by name."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    @classmethod
    def open(cls, files: ModelFiles, part: Part, made: Graph, providers: list[Any], threads: int) -> Session:
        """Open a graph file with the parameters of `made`, the graph built from the weights now."""
        name = f"{files.name}.{part}.onnx"
        try:
            session = onnxruntime.InferenceSession(
                files.graphs[part], session_options(made, threads), providers=providers
            )
        except _REFUSED as error:
            raise MismatchedWeights(f"{name} is not a graph for these weights: {error}") from error
        metadata = session.get_modelmeta().custom_metadata_map
        if metadata.get("config") != files.weights.config.to_json():
            raise MismatchedWeights(
                f"{name} was made for a different configuration than the weights: run `mien model export`"
            )
        return cls(session)


def session_options(graph: Graph, threads: int) -> onnxruntime.SessionOptions:
    """Session options that provide a graph's parameters as the external data that its file declares."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: every start warns about shapes that cannot be inferred
    # Threads that spin while they wait for the next frame would take cores from the encoders.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Far away from a keypoint, its Gaussian is a denormal number, and those are slow.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    names = list(graph.parameters)
    options.add_external_initializers(
        names, [onnxruntime.OrtValue.ortvalue_from_numpy(graph.parameters[name]) for name in names]
    )
    return options


def _providers(kind: str, index: str) -> list[Any]:
    wanted = _PROVIDERS.get(kind)
    if wanted is None:
        raise ProviderMissing(f"the onnx backend runs on cpu, cuda or tensorrt, not on {kind!r}")
    if wanted[0] not in onnxruntime.get_available_providers():
        raise ProviderMissing(f"this ONNX Runtime has no {wanted[0]}: pip install onnxruntime-gpu")
    options = {"device_id": index} if index else {}
    return [(name, options if name != "CPUExecutionProvider" else {}) for name in wanted]
