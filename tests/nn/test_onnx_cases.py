"""ONNX's own cases, models of one operation or a few with inputs and outputs, as a second source.

Its wheel carries them. Each is run by the functions of tensorgrad below and compared.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg

F: Any = tg.nn.functional
_SPEC = importlib.util.find_spec("onnx")
if _SPEC is None or _SPEC.origin is None:
    pytest.skip("could not import 'onnx'", allow_module_level=True)
DATA = Path(_SPEC.origin).parent / "backend" / "test" / "data"
CASES = sorted(
    path.parent for kind in ("pytorch-converted", "pytorch-operator")
    for path in (DATA / kind).glob("*/model.onnx")
)  # fmt: skip


# --- the operations (opset 6), by functions of tensorgrad -----------------------------------------


def _aligned(a: Any, b: Any, broadcast: int = 0, axis: int | None = None) -> Any:
    """``b`` with the axes that ``axis`` says its first one stands at in ``a``."""
    if not broadcast or axis is None or b.ndim == a.ndim:
        return b
    return b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))


def _symmetric(pads: list[int]) -> tuple[int, ...]:
    half = len(pads) // 2
    assert pads[:half] == pads[half:], "these cases pad both sides alike"
    return tuple(pads[:half])


def _by_rank(name: str, x: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(F, f"{name}{x.ndim - 2}d")
    return function


def _conv(
    x: Any, w: Any, b: Any = None, *, dilations: Any, group: int, kernel_shape: Any, pads: Any,
    strides: Any,
) -> Any:  # fmt: skip
    assert w.shape[2:] == tuple(kernel_shape)
    convolve = _by_rank("conv", x)
    return convolve(x, w, b, tuple(strides), _symmetric(pads), tuple(dilations), group)


def _conv_transpose(
    x: Any, w: Any, b: Any = None, *, dilations: Any, group: int, kernel_shape: Any, pads: Any,
    strides: Any, output_padding: Any,
) -> Any:  # fmt: skip
    convolve = _by_rank("conv_transpose", x)
    sizes = (tuple(strides), _symmetric(pads), tuple(output_padding))
    return convolve(x, w, b, *sizes, group, tuple(dilations))


def _max_pool(x: Any, *, kernel_shape: Any, pads: Any, strides: Any, dilations: Any = 1) -> Any:
    dilation = dilations if dilations == 1 else tuple(dilations)
    pool = _by_rank("max_pool", x)
    return pool(x, tuple(kernel_shape), tuple(strides), _symmetric(pads), dilation)


def _average_pool(x: Any, *, kernel_shape: Any, pads: Any, strides: Any) -> Any:
    pool = _by_rank("avg_pool", x)
    return pool(x, tuple(kernel_shape), tuple(strides), _symmetric(pads), count_include_pad=False)


def _batch_normalization(
    x: Any, scale: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float, is_test: int,
    momentum: float,
) -> Any:  # fmt: skip
    assert is_test
    return F.batch_norm(x, mean, variance, scale, bias, False, 1 - momentum, epsilon)


def _pad(x: Any, *, mode: bytes, pads: list[int], value: float = 0.0) -> Any:
    name = {"edge": "replicate"}.get(mode.decode(), mode.decode())
    pairs = list(zip(pads[: x.ndim], pads[x.ndim :]))
    while pairs and pairs[0] == (0, 0):
        del pairs[0]
    flat = tuple(n for pair in reversed(pairs) for n in pair)
    return F.pad(x, flat, name, value) if name == "constant" else F.pad(x, flat, name)


def _gemm(
    a: Any, b: Any, c: Any, *, alpha: float, beta: float, broadcast: int = 0, transB: int = 0
) -> Any:
    assert alpha == 1
    if transB:
        return F.linear(a, b, beta * c)
    return tg.matmul(a, b) + beta * c


def _flattened(function: Callable[..., Any]) -> Callable[..., Any]:
    """The softmax of opset 6: over all axes from ``axis`` on."""

    def call(x: Any, *, axis: int) -> Any:
        lead = x.shape[: axis % x.ndim]
        return function(x.reshape(*lead, -1), axis=-1).reshape(x.shape)

    return call


def _split(x: Any, *, axis: int, split: Any = None) -> Any:
    return tg.split(x, 2 if split is None else list(np.cumsum(split)[:-1]), axis=axis)


def _slice(x: Any, *, axes: Any, starts: Any, ends: Any) -> Any:
    for axis, start, end in zip(axes, starts, ends):
        x = x[(slice(None),) * axis + (slice(start, end),)]
    return x


def _unsqueeze(x: Any, *, axes: Any) -> Any:
    return tg.expand_dims(x, axis=tuple(axes))


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, keepdims: function(x, axis=tuple(axes), keepdims=bool(keepdims))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Abs": tg.abs,
    "Add": lambda a, b, **how: a + _aligned(a, b, **how),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": lambda x, *, min, max: tg.clip(x, min, max),
    "Concat": lambda *xs, axis: tg.concat(xs, axis=axis),
    "Constant": lambda *, value: value,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda a, b, **how: a / _aligned(a, b, **how),
    "Elu": lambda x, *, alpha: F.elu(x, alpha),
    "Exp": tg.exp,
    "Flatten": lambda x, *, axis: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": lambda x, at: tg.take(x, at, axis=0),
    "Gemm": _gemm,
    "InstanceNormalization": lambda x, scale, bias, *, epsilon: F.instance_norm(
        x, weight=scale, bias=bias, eps=epsilon
    ),
    "LeakyRelu": lambda x, *, alpha: F.leaky_relu(x, alpha),
    "LogSoftmax": _flattened(F.log_softmax),
    "MatMul": tg.matmul,
    "Max": tg.maximum,
    "MaxPool": _max_pool,
    "Min": tg.minimum,
    "Mul": lambda a, b, **how: a * _aligned(a, b, **how),
    "Neg": tg.negative,
    "PRelu": lambda x, slope: F.prelu(x, slope.reshape(-1)),
    "Pad": _pad,
    "Pow": tg.pow,
    "ReduceMean": _reduced(tg.mean),
    "ReduceSum": _reduced(tg.sum),
    "Relu": F.relu,
    "Reshape": lambda x, shape: x.reshape(tuple(shape.tolist())),
    "Selu": F.selu,
    "Sigmoid": F.sigmoid,
    "Slice": _slice,
    "Softmax": _flattened(F.softmax),
    "Softplus": F.softplus,
    "Split": _split,
    "Sqrt": tg.sqrt,
    "Squeeze": lambda x, *, axes: tg.squeeze(x, axis=tuple(axes)),
    "Sub": lambda a, b, **how: a - _aligned(a, b, **how),
    "Sum": lambda *xs: sum(xs[1:], xs[0]),
    "Tanh": tg.tanh,
    "Tile": lambda x, times: tg.tile(x, tuple(times.tolist())),
    "Transpose": lambda x, *, perm: tg.transpose(x, tuple(perm)),
    "Unsqueeze": _unsqueeze,
}


def _tensor(proto: Any) -> Any:
    from onnx import numpy_helper

    return tg.Tensor(np.array(numpy_helper.to_array(proto)))


def _read(path: Path) -> Any:
    from onnx import TensorProto

    proto = TensorProto()
    proto.ParseFromString(path.read_bytes())
    return _tensor(proto)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import TensorProto, helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: _tensor(v) if isinstance(v, TensorProto) else v for k, v in found.items()}


def _run(folder: Path) -> tuple[list[Any], list[Any]]:
    """The outputs of the model in ``folder``, and those it is to have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnx

    graph = onnx.load(str(folder / "model.onnx")).graph
    known = {one.name: _tensor(one) for one in graph.initializer}
    data = folder / "test_data_set_0"
    open_inputs = [one.name for one in graph.input if one.name not in known]
    for k, name in enumerate(open_inputs):
        known[name] = _read(data / f"input_{k}.pb")
    for node in graph.node:
        result = OPERATIONS[node.op_type](*(known[i] for i in node.input), **_attributes(node))
        results = [result] if isinstance(result, tg.Tensor) else list(result)
        assert len(results) == len(node.output)
        known.update(zip(node.output, results))
    wanted = [_read(data / f"output_{k}.pb") for k in range(len(graph.output))]
    return [known[one.name] for one in graph.output], wanted


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # roots of negative numbers
@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name.removeprefix("test_"))
def test_case(folder: Path) -> None:
    """The outputs are those in the file, to float32's rounding."""
    found, wanted = _run(folder)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_the_cases_are_there() -> None:
    """The wheel carries 82 and 35."""
    assert len(CASES) >= 117
