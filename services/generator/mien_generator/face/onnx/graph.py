"""Builds an ONNX graph: nodes in order, parameters stored separately, and at the end the ONNX file.

Building needs only numpy, so that a service can compute the parameters from the weights file. Only `serialised` needs
the `onnx` package: `mien model export` calls it once, and ONNX Runtime reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Attribute = int | float | str | list[int]

#: Since opset 20, ONNX's GridSample has the mode names that the graphs use.
OPSET = 20
#: Domain of QLinearConv with channels last and of the pooling between such convolutions.
CONTRIB = "com.microsoft"
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Node:
    """One operator, from the standard domain or from ONNX Runtime's domain."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    domain: str
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph. A dimension given by name may have any length."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


class Graph:
    """A graph under construction. Operators are appended in the order of execution; methods return the new name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        #: Arrays computed from the weights. A session receives them when it opens; by default they are not stored.
        self.parameters: dict[str, Array] = {}
        self._constants: dict[str, Array] = {}

    def input(self, name: str, dtype: type[np.generic], *shape: int | str) -> str:
        self.inputs.append(Port(name, np.dtype(dtype), shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], *shape: int | str) -> None:
        """Declare a value as an output with the given name."""
        self._append("Identity", (value,), name, "", {})
        self.outputs.append(Port(name, np.dtype(dtype), shape))

    def parameter(self, name: str, array: Array) -> str:
        self.parameters[name] = np.asarray(array, order="C")
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """A small array that does not depend on the weights. Equal constants are stored once."""
        array = np.asarray(value, dtype)
        for name, known in self._constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and np.array_equal(known, array):
                return name
        name = f"constant_{len(self._constants)}"
        self._constants[name] = array
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Append an operator with one output; returns the name of the output."""
        output = f"{kind}_{len(self.nodes)}"
        self._append(kind, inputs, output, domain, attributes)
        return output

    def integers(self, *values: int) -> str:
        """An int64 constant: a shape, axes, or the bounds of a slice."""
        return self.constant(values, np.int64)

    def serialised(self, metadata: dict[str, str], *, with_parameters: bool = False) -> bytes:
        """The graph as an ONNX file. Without `with_parameters`, its parameters are declared as external data.

        A file with parameters is complete. It names the domain of ONNX Runtime's own operators only if it uses one, so
        that any runtime can open a graph of standard operators. Needs the `onnx` package.
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
            # This location is never read: the code that opens the session passes these arrays by name.
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
