"""A JAX function as an ONNX model: it is traced, and each primitive of its jaxpr becomes a few ONNX operators.

Only operators that every runtime has, of an opset that runtimes have had since 2021. One dimension may be symbolic: the
batch. A primitive that is not known here is an error that names it; a new one is a line in `_OPERATORS` or a case in
`_Graph.translate`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segue.errors import SegueError

OPSET = 17
#: The file format version that goes with it.
IR_VERSION = 8

#: Primitives that are one operator with the same operands: those of the same name, and the others.
_OPERATORS = {
    **{name: name.capitalize() for name in ("abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atanh")},
    **{name: name.capitalize() for name in ("ceil", "cos", "cosh", "div", "erf", "exp", "floor", "log", "max", "min")},
    **{name: name.capitalize() for name in ("mul", "neg", "not", "or", "pow", "sign", "sin", "sinh", "sqrt", "sub")},
    **{name: name.capitalize() for name in ("tan", "tanh", "xor")},
    "copy": "Identity",
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "logistic": "Sigmoid",
    "lt": "Less",
    "stop_gradient": "Identity",
}
_REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}
#: Primitives that are a function of their own, by the parameter that has it.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "closed_call", "core_call"), "call_jaxpr"),
}

#: A constant, or the name of what a node gives.
Value = np.ndarray | str


def onnx_model(
    function: Callable[..., Sequence[Any]],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    *,
    batch: Any,
    defaults: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> bytes:
    """The model of a function, as a file's content.

    Args:
        function: of one array per input; gives one array per output.
        inputs: their shapes, in which `batch` is the only dimension that is not a number; the first has it as its
            first axis.
        outputs: their names.
        batch: the symbolic dimension (`jax.export.symbolic_shape`).
        defaults: of inputs that need not be given, with a batch of 1 that operators repeat.

    Raises:
        SegueError: for a primitive that has no translation, by its name.
    """
    traced = jax.make_jaxpr(function)(*inputs.values())
    graph = _Graph(batch, next(iter(inputs)))
    values = graph.run(traced.jaxpr, traced.consts, list(inputs))
    for name, value in zip(outputs, values, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name(value)], [name]))

    def described(name: str, aval: Any) -> onnx.ValueInfoProto:
        # A default's batch is not the others', or a runtime would take their memory to be of one size.
        own = f"{name}_" if name in defaults else ""
        shape = [size if isinstance(size, int) else f"{own}{size}" for size in aval.shape]
        return helper.make_tensor_value_info(name, _type(aval.dtype), shape)

    model = helper.make_model(
        helper.make_graph(
            graph.needed(outputs),
            "policy",
            [described(name, aval) for name, aval in inputs.items()],
            [described(name, aval) for name, aval in zip(outputs, traced.out_avals, strict=True)],
            [],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="segue",
    )
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in defaults.items())
    model.graph.initializer.extend(constant for constant in graph.constants.values() if constant.name in used)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self, batch: Any, batched: str) -> None:
        self.batch, self.batched = batch, batched
        self.nodes: list[onnx.NodeProto] = []
        #: What was repeated along an axis to make a value, and its shape.
        self.narrow: dict[str, tuple[Value, list[Any]]] = {}
        #: By type, shape and content: equal ones are one.
        self.constants: dict[tuple[Any, ...], TensorProto] = {}

    def name(self, value: Value) -> str:
        """Of a value; a constant becomes one of the model's."""
        if isinstance(value, str):
            return value
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def integers(self, *numbers: int) -> Value:
        """What operators take for shapes, axes and places."""
        return np.array(numbers, np.int64)

    def add(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """One more node, and the name of what it gives."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.name(x) for x in inputs], [name], **attributes))
        return name

    def needed(self, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes that the outputs depend on."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]

    def dimension(self, size: Any) -> Value:
        """One dimension, int64 [1]."""
        if isinstance(size, int):
            return self.integers(size)
        if size != self.batch:
            raise SegueError(f"a dimension of {size} cannot be exported to ONNX; expected a number, or one per episode")
        return self.add("Slice", self.add("Shape", self.batched), self.integers(0), self.integers(1))

    def shape(self, shape: Sequence[Any]) -> Value:
        if all(isinstance(size, int) for size in shape):
            return self.integers(*shape)
        return self.add("Concat", *(self.dimension(size) for size in shape), axis=0)

    def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return self.add("Reshape", x, self.integers(*sizes) if sizes.count(-1) < 2 else self.shape(shape))

    def run(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        """The nodes of a jaxpr, and its results; what depends on constants only is computed now."""
        known: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        known.update(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))

        def read(atom: Any) -> Value:
            return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            # `dim_as_value` has neither operands nor axes, but depends on the batch.
            fixed = equation.primitive.name != "dim_as_value" and all(
                isinstance(size, int) for var in equation.outvars for size in var.aval.shape
            )
            if equation.primitive.name in _CALLS:
                inner = equation.params[_CALLS[equation.primitive.name]]
                results = self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
            elif fixed and not any(isinstance(operand, str) for operand in operands):
                computed = equation.primitive.bind(*operands, **equation.params)
                results = list(map(np.asarray, computed if equation.primitive.multiple_results else [computed]))
            else:
                made = self.translate(equation, operands)
                results = made if isinstance(made, list) else [made]
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def translate(self, equation: Any, x: Sequence[Value]) -> Value | list[Value]:
        """The nodes of one primitive."""
        given = equation.params
        out = equation.outvars[0].aval
        shapes = [atom.aval.shape for atom in equation.invars]
        dtype = equation.invars[0].aval.dtype if equation.invars else np.dtype(np.float32)
        match equation.primitive.name:
            case "and" | "or" | "not" | "xor" if dtype.kind != "b":
                pass  # of bits
            case "max" if any(isinstance(part, np.ndarray) and part.shape == () and part == 0 for part in x):
                return self.add("Relu", next(part for part in x if isinstance(part, str)))
            case name if name in _OPERATORS:
                return self.add(_OPERATORS[name], *self.unspread(x, shapes, out.shape))
            case "ne":
                return self.add("Not", self.add("Equal", *x))
            case "is_finite":
                return self.add("Equal", self.add("Sub", x[0], x[0]), np.zeros((), dtype))
            case "square":
                return self.add("Mul", x[0], x[0])
            case "integer_pow":
                return self.add("Pow", x[0], np.asarray(given["y"], dtype))
            case "rsqrt":
                return self.add("Reciprocal", self.add("Sqrt", x[0]))
            case "log1p":
                return self.add("Log", self.add("Add", x[0], np.ones((), dtype)))
            case "expm1":
                return self.add("Sub", self.add("Exp", x[0]), np.ones((), dtype))
            case "erfc":
                return self.erfc(x[0])
            case "rem":
                return self.add("Mod", *x, fmod=1)
            case "clamp":
                return self.add("Min", self.add("Max", x[1], x[0]), x[2])
            case "select_n" if out.dtype.kind == "b" and len(x) == 3:
                # onnxruntime has no Where of truth values.
                first = self.add("And", self.add("Not", x[0]), x[1])
                return self.add("Or", first, self.add("And", x[0], x[2]))
            case "select_n" if len(x) == 3 and dtype.kind == "b":
                return self.add("Where", *(self.unspread(x, shapes, out.shape)[case] for case in (0, 2, 1)))
            case "convert_element_type":
                return x[0] if dtype == out.dtype else self.add("Cast", x[0], to=_type(out.dtype))
            case "reshape" | "squeeze" | "expand_dims":
                return self.reshape(x[0], out.shape)
            case "broadcast_in_dim":
                where = dict(zip(given["broadcast_dimensions"], shapes[0], strict=True))
                aligned = [where.get(axis, 1) for axis in range(len(out.shape))]
                value = x[0] if list(shapes[0]) == aligned else self.reshape(x[0], aligned)
                if aligned == list(out.shape):
                    return value
                spread = self.add("Expand", value, self.shape(out.shape))
                self.narrow[spread] = value, aligned
                return spread
            case "transpose":
                return self.add("Transpose", x[0], perm=list(given["permutation"]))
            case "pad" if all(inner == 0 for _, _, inner in given["padding_config"]):
                before, after, _ = zip(*given["padding_config"], strict=True)
                return self.add("Pad", x[0], self.integers(*before, *after), x[1])
            case "concatenate":
                return self.add("Concat", *x, axis=given["dimension"])
            case "stack":
                axis = given["axis"]
                raised = [self.add("Unsqueeze", part, self.integers(axis)) for part in x]
                stack = self.add("Concat", *raised, axis=axis)
                if all(part is x[0] for part in x):
                    self.narrow[stack] = raised[0], [1 if i == axis else size for i, size in enumerate(out.shape)]
                return stack
            case "split":
                ends = np.cumsum(given["sizes"])
                pairs = zip(ends - given["sizes"], ends, strict=True)
                return [self.part(x[0], {given["axis"]: (int(start), int(end))}) for start, end in pairs]
            case "slice":
                steps = given["strides"] or [1] * len(shapes[0])
                ranges = zip(given["start_indices"], given["limit_indices"], steps, strict=True)
                taken = {i: r for i, r in enumerate(ranges) if r != (0, shapes[0][i], 1)}
                return self.part(x[0], taken)
            case "reduce_sum":
                return self.add("ReduceSum", x[0], self.integers(*given["axes"]), keepdims=0)
            case name if name in _REDUCTIONS:
                return self.add(_REDUCTIONS[name], x[0], axes=list(given["axes"]), keepdims=0)
            case "reduce_and" | "reduce_or":
                reduce = "ReduceMin" if equation.primitive.name == "reduce_and" else "ReduceMax"
                number = self.add("Cast", x[0], to=TensorProto.INT32)
                return self.add("Cast", self.add(reduce, number, axes=list(given["axes"]), keepdims=0), to=_type(bool))
            case "argmax" | "argmin" as name:
                found = self.add("ArgMax" if name == "argmax" else "ArgMin", x[0], axis=given["axes"][0], keepdims=0)
                return self.add("Cast", found, to=_type(out.dtype))
            case "dot_general":
                return self.product(x, shapes, given["dimension_numbers"])
            case "gather":
                gathered = self.gather(x, shapes, out.shape, given)
                if gathered is not None:
                    return gathered
            case "dim_as_value":
                return self.add("Cast", self.reshape(self.dimension(given["dim"]), ()), to=_type(out.dtype))
        raise SegueError(
            f"the JAX primitive {equation.primitive.name} of {dtype} has no translation to ONNX as it is used here: "
            f"{str(equation)[:200]}"
        )

    def unspread(self, x: Sequence[Value], shapes: Sequence[Any], out: Any) -> Sequence[Value]:
        """Operands of an operator that repeats them itself, if one of them has every axis."""
        narrow = [self.narrow[part][0] if isinstance(part, str) and part in self.narrow else None for part in x]
        whole = any(less is None and shape == out for less, shape in zip(narrow, shapes, strict=True))
        return [part if less is None or not whole else less for part, less in zip(x, narrow, strict=True)]

    def part(self, x: Value, taken: Mapping[int, tuple[int, ...]]) -> Value:
        """Of some axes the range from start to end, in steps if there is a third number."""
        if not taken:
            return x
        start, end, *step = zip(*taken.values(), strict=True)
        return self.add("Slice", x, *(self.integers(*numbers) for numbers in (start, end, tuple(taken), *step)))

    def product(self, x: Sequence[Value], shapes: Sequence[Any], numbers: Any) -> Value:
        """A matrix product where it is one, or else the sum that it is."""
        (left, right), (left_batch, right_batch) = numbers
        rank, other, lead = len(shapes[0]), len(shapes[1]), tuple(range(len(left_batch)))
        matrices = (other == len(lead) + 2 and (not lead or rank == other)) or (other == 1 and not lead)
        if matrices and (left, right) == ((rank - 1,), (len(lead),)) and left_batch == right_batch == lead:
            first, narrow = self.narrow.get(str(x[0]), (x[0], []))
            # MatMul spreads the leading axes itself, such as one observation for the members of an ensemble.
            alone = isinstance(x[1], np.ndarray) and narrow[len(lead) :] == list(shapes[0][len(lead) :])
            return self.add("MatMul", first if alone else x[0], x[1])
        letters = iter(string.ascii_letters)
        left_letters = [next(letters) for _ in range(rank)]
        pairs = dict(zip((*right, *right_batch), (left_letters[axis] for axis in (*left, *left_batch)), strict=True))
        right_letters = [pairs.get(axis) or next(letters) for axis in range(other)]
        result = [left_letters[axis] for axis in left_batch]
        result += [letter for axis, letter in enumerate(left_letters) if axis not in (*left, *left_batch)]
        result += [letter for axis, letter in enumerate(right_letters) if axis not in pairs]
        equation = f"{''.join(left_letters)},{''.join(right_letters)}->{''.join(result)}"
        return self.add("Einsum", *x, equation=equation)

    def gather(self, x: Sequence[Value], shapes: Sequence[Any], out: Sequence[Any], given: Any) -> Value | None:
        """Parts that begin at known places, what an index of each row takes of an axis, or whole rows by number."""
        numbers, sizes = given["dimension_numbers"], given["slice_sizes"]
        axes, batching = tuple(numbers.start_index_map), tuple(numbers.operand_batching_dims)
        if isinstance(x[1], np.ndarray) and x[1].shape == (len(axes),):
            ranges = {axis: (int(at), int(at) + sizes[axis]) for axis, at in zip(axes, x[1], strict=True)}
            taken = self.part(x[0], ranges)
            return self.reshape(taken, out) if numbers.collapsed_slice_dims else taken
        if len(axes) != 1 or tuple(numbers.collapsed_slice_dims) != axes or shapes[1][-1] != 1:
            return None
        (axis,), rank = axes, len(shapes[1]) - 1
        index = self.reshape(x[1], shapes[1][:-1])
        if not batching:
            lead = range(axis)
            rest = range(axis + rank, len(out))
            return self.add("Gather", x[0], index, axis=axis) if numbers.offset_dims == (*lead, *rest) else None
        if rank != len(batching) + 1 or len(out) != len(shapes[0]):
            return None
        inner = [where for where in range(len(out)) if where not in numbers.offset_dims]
        places = dict(zip(numbers.start_indices_batching_dims, batching, strict=True))
        if [places.get(place, axis) for place in range(rank)] != inner:
            return None
        aligned = [1 if where in numbers.offset_dims else size for where, size in enumerate(out)]
        index = self.add("Expand", self.reshape(index, aligned), self.shape(out))
        return self.add("GatherElements", x[0], index, axis=axis)

    def erfc(self, x: Value) -> Value:
        """1 − erf(x), also where that is small: Chebyshev's fit of Numerical Recipes, of relative error 1.2e-7."""
        zero, half, one, two, *fit = np.array([0, 0.5, 1, 2, *_ERFC], np.float32)[:, None]
        size = self.add("Abs", x)
        t = self.add("Reciprocal", self.add("Add", self.add("Mul", size, half), one))
        power: Value = fit[-1]
        for coefficient in fit[-2::-1]:
            power = self.add("Add", self.add("Mul", power, t), coefficient)
        tail = self.add("Mul", t, self.add("Exp", self.add("Sub", power, self.add("Mul", size, size))))
        return self.add("Where", self.add("Less", x, zero), self.add("Sub", two, tail), tail)


_ERFC = (
    *(-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806),
    *(0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277),
)
