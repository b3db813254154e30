"""Makes the files that run the encoder K in a browser, in clients/js/encoder.

    python tools/browser_encoder.py            the weights, the kernel and their manifest
    python tools/browser_encoder.py weights    the weights and the manifest, without a compiler

encoder.weights holds the weights of encoder.onnx as floats, little-endian, in the order in which kernel.c reads them
(see its first comment). kernel.wasm needs clang and lld 16 (Debian: clang-16, lld-16). manifest.js holds length and
SHA-256 of both. Needs the onnx package.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from mien_encoder.keypoints import bundled_path

FOLDER = Path(__file__).resolve().parents[1] / "clients/js/encoder"
SOURCES = ("kernel.c", "cut.c")
COMPILER, LINKER = "clang-16", "wasm-ld-16"

FloatArray = NDArray[np.float32]

#: SIMD and bulk memory are in every browser that runs the kernel; nothing of a C library is linked.
_FLAGS = [
    *("--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-ffreestanding", "-nostdlib", "-fno-strict-aliasing"),
    *(
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wl,--no-entry",
        "-Wl,--export-dynamic",
        "-Wl,--strip-all",
    ),
]
#: Outputs of a dense layer that the kernel computes side by side.
_GROUP = 8


class Tape:
    """The floats of the file, in the kernel's order. Each method appends one of the parts that kernel.c describes."""

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self._weights = weights
        self._parts: list[FloatArray] = []

    def values(self) -> FloatArray:
        return np.concatenate([part.ravel() for part in self._parts]).astype("<f4")

    def dense(self, name: str, *, three_by_three: bool = False) -> None:
        """A 1x1 convolution, or the stem's 3x3 convolution with the inputs in the order row, column, channel."""
        kernel, biases = self._layer(name)
        matrix = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1) if three_by_three else kernel[:, :, 0, 0]
        spare = -len(matrix) % 4
        matrix, biases = np.pad(matrix, ((0, spare), (0, 0))), np.pad(biases, (0, spare))
        self._count(len(matrix))
        self._parts.append(biases)
        self._parts += [matrix[start : start + _GROUP].T for start in range(0, len(matrix), _GROUP)]

    def depthwise(self, name: str) -> None:
        kernel, biases = self._layer(name)
        self._parts += [biases, kernel[:, 0].transpose(1, 2, 0)]

    def rows(self, name: str) -> None:
        """A linear layer, or a 1x1 convolution that the kernel computes for one vector of inputs at a time."""
        matrix, biases = self._layer(name)
        for weights, bias in zip(matrix.reshape(len(matrix), -1), biases, strict=True):
            self._parts += [np.array([bias]), weights]

    def stage(self, name: str, strides: dict[str, int]) -> None:
        """A sequence of inverted residuals. strides: of each depthwise layer, by its name."""
        blocks = sorted({key.split(".")[1] for key in self._weights if key.startswith(f"{name}.")}, key=int)
        self._count(len(blocks))
        for block in blocks:
            layers = [
                key.removesuffix(".weight")
                for key in self._weights
                if key.startswith(f"{name}.{block}.") and key.endswith(".weight")
            ]
            *widen, filter_, narrow = layers
            self._count(len(self._weights[f"{filter_}.weight"]))
            self._count(strides[filter_])
            for layer in widen:
                self.dense(layer)
            self.depthwise(filter_)
            self.dense(narrow)

    def _layer(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _count(self, count: int) -> None:
        self._parts.append(np.array([count], np.float32))


def tape_of(model: bytes) -> FloatArray:
    """The weights of an encoder file, an ONNX graph, in the kernel's order."""
    graph = onnx.load_from_string(model).graph
    weights = {
        tensor.name.removeprefix("network."): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in graph.initializer
    }
    strides = {
        node.input[1].removeprefix("network.").removesuffix(".weight"): attribute.ints[0]
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "strides"
    }
    tape = Tape(weights)
    tape.dense("stem.0", three_by_three=True)
    for stage in ("to_16", "to_8", "tail"):
        tape.stage(stage, strides)
    for name in ("from_4", "from_8", "from_16"):
        tape.dense(name)
    tape.depthwise("mix.0")
    tape.dense("mix.2")
    tape.dense("heatmaps")
    tape.rows("readings")
    tape.rows("presence")
    return tape.values()


def build_kernel(to: Path) -> None:
    """Compile and link the kernel. Raises CalledProcessError; FileNotFoundError if there is no compiler."""
    linker = shutil.which(LINKER)
    if linker is None:
        raise FileNotFoundError(f"{LINKER} is not installed")
    sources = [str(FOLDER / source) for source in SOURCES]
    subprocess.run([COMPILER, *_FLAGS, f"-fuse-ld={linker}", *sources, "-o", str(to)], check=True)
    to.chmod(0o644)


def manifest() -> str:
    """The text of manifest.js for the two files as they are."""
    lines = ["// Made by tools/browser_encoder.py: length and SHA-256 of the two files beside this one."]
    for name, path in (("KERNEL", FOLDER / "kernel.wasm"), ("WEIGHTS", FOLDER / "encoder.weights")):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f'export const {name} = {{ file: "{path.name}", bytes: {len(data)}, sha256: "{digest}" }};')
    return "\n".join(lines) + "\n"


def main() -> None:
    (FOLDER / "encoder.weights").write_bytes(tape_of(bundled_path().read_bytes()).tobytes())
    if sys.argv[1:] != ["weights"]:
        build_kernel(FOLDER / "kernel.wasm")
    (FOLDER / "manifest.js").write_text(manifest())


if __name__ == "__main__":
    main()
