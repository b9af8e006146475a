"""The greedy action of a policy as an ONNX model: raw flattened observation in, the environment's action out.

Only operators that every runtime has, of an opset that runtimes have had since 2021. A model cannot raise: where
`load_policy` would, a continuous action is NaN and a discrete one is one below the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segue.deployment.kinds import (
    Categorical,
    ClippedGaussian,
    Expansion,
    FilteredValues,
    Gaussian,
    Kind,
    Network,
    Proposals,
    Values,
)
from segue.deployment.policy import ExportedPolicy
from segue.deployment.spaces import DiscreteActions

OPSET = 17
#: The file format version that goes with it.
IR_VERSION = 8
INPUT, OUTPUT = "observation", "action"


class _Graph:
    """Nodes and constants as they are added; a value is the name of what a node gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        #: What tells whether an action means anything: [batch, …].
        self.checked: list[str] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def columns(self, x: str, start: int, stop: int) -> str:
        first, last, axis = (self.constant([value], np.int64) for value in (start, stop, -1))
        return self.add("Slice", x, first, last, axis)

    def check(self, x: str) -> str:
        """Have the action depend on these numbers being finite, `[batch, …]`."""
        self.checked.append(x)
        return x


def onnx_model(policy: ExportedPolicy) -> bytes:
    """The model, as a file's content; input `observation` float32 [batch, size], output `action` [batch, …]."""
    graph = _Graph()
    centred = graph.add("Sub", INPUT, graph.constant(policy.mean))
    x = graph.check(graph.add("Div", centred, graph.constant(policy.std)))
    action, size = _greedy(graph, policy.kind, x), len(policy.mean)
    invalid = _invalid(graph)
    shape: list[str | int]
    if isinstance(policy.actions, DiscreteActions):
        number = graph.add("Add", action, graph.constant(policy.actions.start, np.int64))
        flag = graph.add("Squeeze", invalid, graph.constant([1], np.int64))
        graph.add("Where", flag, graph.constant(policy.actions.start - 1, np.int64), number)
        dtype, shape = TensorProto.INT64, ["batch"]
    else:
        low, high = graph.constant(policy.actions.low), graph.constant(policy.actions.high)
        scaled = graph.add("Mul", action, graph.constant(policy.actions.half_range))
        scaled = graph.add("Add", scaled, graph.constant(policy.actions.centre))
        bounded = graph.add("Min", graph.add("Max", scaled, low), high)
        graph.add("Where", invalid, graph.constant(np.nan), bounded)
        dtype, shape = TensorProto.FLOAT, ["batch", policy.actions.size]
    graph.nodes[-1].output[0] = OUTPUT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", size])],
            [helper.make_tensor_value_info(OUTPUT, dtype, shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="segue",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _invalid(graph: _Graph) -> str:
    """Whether any of the checked numbers is NaN or infinite, bool [batch, 1]."""
    flags = []
    for x in graph.checked:
        bad = graph.add("Or", graph.add("IsNaN", x), graph.add("IsInf", x))
        number = graph.add("Cast", bad, to=TensorProto.FLOAT)
        flags.append(graph.add("ReduceMax", number, axes=[1], keepdims=1))
    return graph.add("Cast", graph.add("Max", *flags), to=TensorProto.BOOL)


def _greedy(graph: _Graph, kind: Kind, x: str) -> str:
    """The greedy action in [-1, 1] [batch, action], or counted from 0 [batch]."""
    match kind:
        case Gaussian():
            mean = graph.columns(_network(graph, kind.actor, x), 0, kind.actor.weights[-1].shape[-1] // 2)
            return graph.add("Tanh", graph.check(mean))
        case ClippedGaussian():
            return graph.add("Tanh", graph.check(_network(graph, kind.actor, x)))
        case Categorical():
            return _argmax(graph, graph.check(_network(graph, kind.actor, x)))
        case FilteredValues():
            log_prob = _log_softmax(graph, graph.check(_network(graph, kind.behaviour, x)))
            likeliest = graph.add("ReduceMax", log_prob, axes=[1], keepdims=1)
            share = graph.add("Sub", log_prob, likeliest)
            allowed = graph.add("Greater", share, graph.constant(kind.log_threshold))
            return _argmax(graph, graph.add("Where", allowed, _values(graph, kind.critic, x), graph.constant(-np.inf)))
        case Values():
            return _argmax(graph, _values(graph, kind.critic, x))
        case Proposals():
            return _proposals(graph, kind, x)
        case Expansion():
            return _expansion(graph, kind, x)


def _argmax(graph: _Graph, values: str) -> str:
    return graph.add("ArgMax", values, axis=1, keepdims=0)


def _values(graph: _Graph, critic: Network, x: str) -> str:
    """min_i Q_i of every output, [batch, outputs]."""
    return graph.check(graph.add("ReduceMin", _network(graph, critic, x), axes=[0], keepdims=0))


def _proposals(graph: _Graph, kind: Proposals, x: str) -> str:
    """A batch of states by a batch of codes: [codes, batch, …] until the best is taken."""
    count, latent = kind.codes.shape
    batch = graph.add("Slice", graph.add("Shape", x), graph.constant([0], np.int64), graph.constant([1], np.int64))

    def everywhere(value: str, width: int) -> str:
        lead, end = graph.constant([count], np.int64), graph.constant([width], np.int64)
        return graph.add("Expand", value, graph.add("Concat", lead, batch, end, axis=0))

    states = everywhere(x, kind.decoder.weights[0].shape[0] - latent)
    codes = everywhere(graph.constant(kind.codes[:, None]), latent)
    action = graph.add("Tanh", _network(graph, kind.decoder, graph.add("Concat", states, codes, axis=-1)))
    moved = graph.add("Tanh", _network(graph, kind.perturbation, graph.add("Concat", states, action, axis=-1)))
    moved = graph.add("Add", action, graph.add("Mul", moved, graph.constant(kind.perturbation_size)))
    moved = graph.add("Clip", moved, graph.constant(-1), graph.constant(1))
    values = _network(graph, kind.critic, graph.add("Concat", states, moved, axis=-1))
    rows = graph.add("Transpose", graph.add("Squeeze", values, graph.constant([2], np.int64)), perm=[1, 0])
    best = graph.add("ArgMax", graph.check(rows), axis=1, keepdims=1)
    by_row = graph.add("Transpose", moved, perm=[1, 0, 2])
    return graph.add("GatherND", by_row, best, batch_dims=1)


def _expansion(graph: _Graph, kind: Expansion, x: str) -> str:
    online, offline = _greedy(graph, kind.online, x), _greedy(graph, kind.offline, x)
    if not isinstance(kind.online, Categorical):
        both = [_values(graph, kind.critic, graph.add("Concat", x, action, axis=1)) for action in (online, offline)]
        better = graph.add("GreaterOrEqual", *both)  # [batch, 1]
    else:
        every, last = _network(graph, kind.critic, x), graph.constant([-1], np.int64)
        hot = [_one_hot(graph, action, kind.critic.weights[-1].shape[-1]) for action in (online, offline)]
        taken = [graph.add("ReduceSum", graph.add("Mul", every, one), last, keepdims=0) for one in hot]
        both = [graph.add("ReduceMin", value, axes=[0], keepdims=1) for value in taken]
        for value in both:
            graph.check(graph.add("Transpose", value, perm=[1, 0]))
        better = graph.add("Squeeze", graph.add("GreaterOrEqual", *both), graph.constant([0], np.int64))
    return graph.add("Where", better, online, offline)


def _one_hot(graph: _Graph, action: str, count: int) -> str:
    return graph.add("OneHot", action, graph.constant(count, np.int64), graph.constant([0, 1]), axis=-1)


def _log_softmax(graph: _Graph, logits: str) -> str:
    return graph.add("LogSoftmax", logits, axis=-1)


def _network(graph: _Graph, network: Network, x: str) -> str:
    """[batch, inputs] to [batch, outputs], or to [members, batch, outputs] for an ensemble."""
    *hidden, head = zip(network.weights, network.biases, strict=True)
    for layer, (weight, bias) in enumerate(hidden):
        x = _linear(graph, x, weight, bias)
        if network.norms and not network.norm_after:
            x = _layer_norm(graph, x, *network.norms[layer])
        x = _ACTIVATIONS[network.activation](graph, x)
        if network.norms and network.norm_after:
            x = _layer_norm(graph, x, *network.norms[layer])
    return _linear(graph, x, *head)


def _linear(graph: _Graph, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
    return graph.add("Add", graph.add("MatMul", x, graph.constant(weight)), graph.constant(bias))


def _layer_norm(graph: _Graph, x: str, scale: np.ndarray, shift: np.ndarray) -> str:
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[-1], keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=[-1], keepdims=1)
    spread = graph.add("Sqrt", graph.add("Add", variance, graph.constant(1e-5)))
    normal = graph.add("Div", centred, spread)
    return graph.add("Add", graph.add("Mul", normal, graph.constant(scale)), graph.constant(shift))


def _gelu(graph: _Graph, x: str) -> str:
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    inner = graph.add("Add", x, graph.add("Mul", cube, graph.constant(0.044715)))
    gate = graph.add("Tanh", graph.add("Mul", inner, graph.constant(0.7978845608)))
    half = graph.add("Mul", x, graph.constant(0.5))
    return graph.add("Mul", half, graph.add("Add", gate, graph.constant(1)))


_ACTIVATIONS = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "elu": lambda graph, x: graph.add("Elu", x, alpha=1.0),
    "gelu": _gelu,
}
