"""A graph under construction: nodes in order, parameters apart, and ONNX's own form of it at the end.

Building one needs numpy alone, so that a service makes its parameters from the weights file. Only `serialised` needs
the `onnx` package: `mien model export` runs it once, and what it wrote is read by ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Attribute = int | float | str | list[int]

#: ONNX's GridSample knows its modes by these names since 20.
OPSET = 20
#: QLinearConv with the channels last, and the pooling between such convolutions.
CONTRIB = "com.microsoft"
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the standard's domain, or of ONNX Runtime's."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    domain: str
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph; a dimension by name may have any length."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


class Graph:
    """Operators are appended in the order they run; every method gives the name of what it added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        #: What the weights make: fed to a session, never stored with the graph.
        self.parameters: dict[str, Array] = {}
        self._constants: dict[str, Array] = {}

    def input(self, name: str, dtype: type[np.generic], *shape: int | str) -> str:
        self.inputs.append(Port(name, np.dtype(dtype), shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], *shape: int | str) -> None:
        """Give a value out under a name of its own."""
        self._append("Identity", (value,), name, "", {})
        self.outputs.append(Port(name, np.dtype(dtype), shape))

    def parameter(self, name: str, array: Array) -> str:
        self.parameters[name] = np.asarray(array, order="C")
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """A small array that does not depend on the weights; equal ones are one."""
        array = np.asarray(value, dtype)
        for name, known in self._constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and np.array_equal(known, array):
                return name
        name = f"constant_{len(self._constants)}"
        self._constants[name] = array
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """One operator with one output."""
        output = f"{kind}_{len(self.nodes)}"
        self._append(kind, inputs, output, domain, attributes)
        return output

    def integers(self, *values: int) -> str:
        """A shape, axes, or the bounds of a slice."""
        return self.constant(values, np.int64)

    def serialised(self, metadata: dict[str, str], *, with_parameters: bool = False) -> bytes:
        """As an ONNX file; its parameters are declared as external data unless they are stored along.

        Stored along, they make a file that any runtime opens: it names ONNX Runtime's own operators only where it has
        some. Needs the `onnx` package.
        """
        from onnx import StringStringEntryProto, TensorProto, checker, helper, numpy_helper

        def port(each: Port) -> Any:
            return helper.make_tensor_value_info(each.name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)

        def external(name: str, array: Array) -> Any:
            tensor = TensorProto(
                name=name,
                dims=array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
            )
            # Nothing is read from there: a session gets these arrays from whoever opens it, by their names.
            tensor.external_data.append(StringStringEntryProto(key="location", value="parameters"))
            return tensor

        stored = dict(self._constants) | (self.parameters if with_parameters else {})
        initializers = [numpy_helper.from_array(array, name) for name, array in stored.items()]
        if not with_parameters:
            initializers += [external(name, array) for name, array in self.parameters.items()]
        domains = {"": OPSET, CONTRIB: 1}
        if with_parameters:
            used = {each.domain for each in self.nodes}
            domains = {domain: version for domain, version in domains.items() if domain in used}
        nodes = []
        for each in self.nodes:
            node = helper.make_node(each.kind, each.inputs, [each.output], domain=each.domain)
            node.attribute.extend(helper.make_attribute(key, value) for key, value in each.attributes.items())
            nodes.append(node)
        model = helper.make_model(
            helper.make_graph(
                nodes,
                self.name,
                [port(each) for each in self.inputs],
                [port(each) for each in self.outputs],
                initializers,
            ),
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
            ir_version=_IR_VERSION,
            producer_name="mien",
        )
        helper.set_model_props(model, metadata)
        if with_parameters:
            checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _append(
        self, kind: str, inputs: tuple[str, ...], output: str, domain: str, attributes: dict[str, Attribute]
    ) -> None:
        self.nodes.append(Node(kind, inputs, output, domain, attributes))
