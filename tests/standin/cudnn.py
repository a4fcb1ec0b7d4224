"""A stand-in for cuDNN and its frontend (package ``cudnn``), computed on the host.

It refuses what the library refuses (tried with frontend 1.32 and cuDNN 9.28, whose planner works
without a GPU for a described device): unknown arguments, tensors without sizes or with strides that
are 0 or negative, sizes that no convolution has, dtypes without a plan, a bias on a gradient, head
sizes that are no multiples of 8, calls out of order, addresses that are missing or misaligned, a
stream that is not the current one. Plans carry notes and do what these say: those that add in any
order differ from call to call, those in less precision round, and FFT and Winograd let an infinity
reach results that do not depend on it.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from standin import cupy_standin
from standin.cublas import rounded_to_tf32

Host = np.ndarray[Any, Any]


class cudnnGraphNotSupportedError(RuntimeError):  # the frontend's name
    pass


data_type = enum.Enum("data_type", "FLOAT DOUBLE HALF BFLOAT16 INT32 BOOLEAN NOT_SET")
heur_mode = enum.Enum("heur_mode", "A B FALLBACK")
build_plan_policy = enum.Enum("build_plan_policy", "HEURISTICS_CHOICE ALL")
numerical_note = enum.Enum(
    "numerical_note",
    "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD "
    "WINOGRAD_TILE_4x4 WINOGRAD_TILE_6x6 WINOGRAD_TILE_13x13 STRICT_NAN_PROP",
)
_DTYPES: dict[Any, np.dtype[Any]] = {
    data_type.FLOAT: np.dtype(np.float32),
    data_type.DOUBLE: np.dtype(np.float64),
    data_type.HALF: np.dtype(np.float16),
    data_type.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
__version__ = "1.32.0"
#: The library's number, which tests change; why it cannot be loaded; kinds of operations that it
#: has no plan for.
version = [92801]
absent: list[str] = []
MISSING: set[str] = set()
#: Kinds of graphs that were planned, and executed; dtypes of these.
planned: list[str] = []
executed: list[str] = []
kinds: set[str] = set()
_draw = np.random.default_rng(0)


# --- handles --------------------------------------------------------------------------------------


class Handle:
    def __init__(self) -> None:
        self.stream = 0
        self.device = cupy_standin.MODULE.cuda.runtime.getDevice()


def backend_version() -> int:
    if absent:
        raise RuntimeError(absent[0])
    return version[0]


def create_handle() -> Handle:
    return Handle()


def set_stream(handle: Handle, stream: int) -> None:
    if not isinstance(handle, Handle) or type(stream) is not int:
        raise TypeError("cudnn.set_stream expects a cudnn.Handle and an integer")
    handle.stream = stream


# --- graphs ---------------------------------------------------------------------------------------


class Tensor:
    def __init__(self, graph: pygraph, uid: int | None = None) -> None:
        self.graph, self.uid = graph, uid
        self.dim: list[int] = []
        self.stride: list[int] = []
        self.data_type: Any = None
        self.virtual = True

    def set_output(self, value: bool) -> Tensor:
        self.virtual = not value
        return self

    def set_dim(self, dim: Sequence[int]) -> Tensor:
        self.dim = list(dim)
        return self

    def set_stride(self, stride: Sequence[int]) -> Tensor:
        self.stride = list(stride)
        return self

    def set_data_type(self, kind: Any) -> Tensor:
        assert kind in data_type
        self.data_type = kind
        return self

    def set_uid(self, uid: int) -> Tensor:
        if uid in (t.uid for t in self.graph.tensors if t is not self):
            raise ValueError(f"uid {uid} is already user-assigned")
        self.uid = uid
        return self

    def checked(self) -> None:
        """Sizes, strides, dtype and number are there, and fit together."""
        if not self.dim:
            raise ValueError("dims not set.")
        if len(self.dim) != len(self.stride):
            raise ValueError(f"dim/stride length mismatch: {len(self.dim)} vs {len(self.stride)}")
        if self.data_type is None or self.uid is None:
            raise RuntimeError("CUDNN_STATUS_INVALID_VALUE: no data type or no uid")
        for n, s in zip(self.dim, self.stride, strict=True):
            if n < 1 or s < 0 or (s == 0 and n > 1) or type(n) is not int or type(s) is not int:
                raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: size {n} with stride {s}")

    def at(self, address: int) -> Host:
        """The array at an address."""
        assert address > 0, "no address"
        assert address % 16 == 0, "a misaligned address"
        dtype = _DTYPES[self.data_type]
        extent = sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True)) + 1
        raw = (ctypes.c_uint8 * (extent * dtype.itemsize)).from_address(address)
        flat = np.ctypeslib.as_array(raw).view(dtype)
        strides = [s * dtype.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.dim, strides)


class _Plan:
    def __init__(self, name: str, workspace: int, *notes: str) -> None:
        self.name, self.workspace = name, workspace
        self.notes = {numerical_note[n] for n in notes}


_CONVOLUTIONS = {
    data_type.FLOAT: [
        _Plan("eng4_k24=2", 0, "WINOGRAD", "WINOGRAD_TILE_4x4"),
        _Plan("eng5", 4096, "FFT"),
        _Plan("eng0", 0, "NONDETERMINISTIC"),
        _Plan("eng3", 0, "DOWN_CONVERT_INPUTS"),
        _Plan("eng34", 1 << 40),
        _Plan("eng38", 4096, "TENSOR_CORE"),
        _Plan("eng1", 4096),
    ],
    data_type.HALF: [
        _Plan("eng2", 0, "REDUCED_PRECISION_REDUCTION", "TENSOR_CORE"),
        _Plan("eng0", 0, "NONDETERMINISTIC", "TENSOR_CORE"),
        _Plan("eng36", 4096, "TENSOR_CORE"),
    ],
}
_CONVOLUTIONS[data_type.BFLOAT16] = _CONVOLUTIONS[data_type.HALF]
_ATTENTION = [_Plan("sdpa_fwd_prefill_sm90[]", 0), _Plan("eng8", 4096, "TENSOR_CORE")]


class pygraph:  # the frontend's name
    def __init__(
        self, name: str = "test_graph", io_data_type: Any = None,
        intermediate_data_type: Any = None, compute_data_type: Any = None, handle: Any = None,
    ) -> None:  # fmt: skip
        assert isinstance(handle, Handle)
        assert handle.device == cupy_standin.MODULE.cuda.runtime.getDevice(), "another device"
        self.handle, self.io, self.compute = handle, io_data_type, compute_data_type
        self.intermediate = intermediate_data_type
        self.tensors: list[Tensor] = []
        self.kind = ""
        self.inputs: dict[str, Tensor] = {}
        self.outputs: list[Tensor] = []
        self.options: dict[str, Any] = {}
        self.biased: Tensor | None = None
        self.done: list[str] = []
        self.plans: list[_Plan] = []

    # --- tensors and operations ---

    def tensor(
        self, dim: Sequence[int], stride: Sequence[int], data_type: Any = None, uid: int = -1
    ) -> Tensor:
        made = Tensor(self).set_dim(dim).set_stride(stride)
        made.data_type, made.virtual = data_type or self.io, False
        self.tensors.append(made)
        return made if uid == -1 else made.set_uid(uid)

    def _operation(self, kind: str, inputs: dict[str, Tensor], outputs: int = 1) -> list[Tensor]:
        assert not self.kind, "one operation to a graph"
        assert all(isinstance(t, Tensor) and t.graph is self for t in inputs.values())
        self.kind, self.inputs = kind, inputs
        self.outputs = [Tensor(self) for _ in range(outputs)]
        self.tensors += self.outputs
        return self.outputs

    def conv_fprop(self, image: Tensor, weight: Tensor, **options: Any) -> Tensor:
        return self._convolution("fprop", {"x": image, "w": weight}, **options)

    def conv_dgrad(self, loss: Tensor, filter: Tensor, **options: Any) -> Tensor:
        return self._convolution("dgrad", {"y": loss, "w": filter}, **options)

    def conv_wgrad(self, image: Tensor, loss: Tensor, **options: Any) -> Tensor:
        return self._convolution("wgrad", {"x": image, "y": loss}, **options)

    def _convolution(
        self, kind: str, inputs: dict[str, Tensor], *, pre_padding: list[int],
        post_padding: list[int], stride: list[int], dilation: list[int],
    ) -> Tensor:  # fmt: skip
        self.options = {
            "pre": pre_padding, "post": post_padding, "stride": stride, "dilation": dilation,
        }  # fmt: skip
        return self._operation(kind, inputs)[0]

    def bias(self, input: Tensor, bias: Tensor) -> Tensor:
        assert [input] == self.outputs
        self.biased = bias
        return input

    def sdpa(
        self, q: Tensor, k: Tensor, v: Tensor, *, generate_stats: bool, attn_scale: float,
        use_causal_mask: bool = False,
    ) -> list[Tensor]:  # fmt: skip
        assert generate_stats is True
        assert type(attn_scale) is float
        assert type(use_causal_mask) is bool
        self.options = {"scale": attn_scale, "causal": use_causal_mask}
        return self._operation("sdpa", {"q": q, "k": k, "v": v}, 2)

    def sdpa_backward(
        self, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dO: Tensor, stats: Tensor, *,
        attn_scale: float, use_causal_mask: bool = False, use_deterministic_algorithm: bool = False,
    ) -> list[Tensor]:  # fmt: skip
        assert type(attn_scale) is float
        assert type(use_causal_mask) is bool
        fixed = use_deterministic_algorithm
        self.options = {"scale": attn_scale, "causal": use_causal_mask, "fixed": fixed}
        inputs = {"q": q, "k": k, "v": v, "o": o, "dO": dO, "stats": stats}
        return self._operation("sdpa_backward", inputs, 3)

    # --- from description to plan ---

    def _after(self, *steps: str) -> None:
        assert self.done == list(steps), f"after {self.done}"

    def validate(self) -> None:
        self._after()
        self.done.append("validate")
        assert self.compute is data_type.FLOAT
        assert self.intermediate is data_type.FLOAT
        for t in self.tensors:
            t.checked()
        assert all(not t.virtual for t in self.tensors)
        if self.kind in ("fprop", "dgrad", "wgrad"):
            _check_convolution(self)
        else:
            _check_attention(self)

    def build_operation_graph(self) -> None:
        self._after("validate")
        self.done.append("build")

    def create_execution_plans(self, modes: Sequence[Any]) -> None:
        self._after("validate", "build")
        assert set(modes) <= set(heur_mode)
        self.done.append("plans")
        kinds = {t.data_type for t in (*self.inputs.values(), self.outputs[0])}
        refused = self.kind in MISSING or (self.biased is not None and self.kind != "fprop")
        refused = refused or ("sdpa" in self.kind and self.io is data_type.FLOAT)
        found = _CONVOLUTIONS.get(self.io, []) if "sdpa" not in self.kind else _ATTENTION
        if refused or len(kinds - {data_type.FLOAT}) > 1 or not found:
            raise cudnnGraphNotSupportedError("No valid engine configs: CUDNN_STATUS_NOT_SUPPORTED")
        self.plans = list(found)

    def _only(self, keep: Any) -> pygraph:
        self._after("validate", "build", "plans")
        self.plans = [plan for plan in self.plans if keep(plan)]
        return self

    def deselect_numeric_notes(self, notes: Sequence[Any]) -> pygraph:
        assert all(isinstance(n, numerical_note) for n in notes)
        return self._only(lambda plan: not plan.notes & set(notes))

    def deselect_engines(self, engine_names: Sequence[str]) -> pygraph:
        return self._only(lambda plan: not any(n in plan.name for n in engine_names))

    def deselect_workspace_greater_than(self, workspace_limit: int) -> pygraph:
        return self._only(lambda plan: plan.workspace <= workspace_limit)

    def check_support(self) -> None:
        self._after("validate", "build", "plans")
        self.done.append("check")
        if not self.plans:
            raise cudnnGraphNotSupportedError("[cudnn_frontend] No execution plans support it.")

    def build_plans(self, policy: Any = build_plan_policy.HEURISTICS_CHOICE) -> None:
        self._after("validate", "build", "plans", "check")
        assert policy in build_plan_policy
        self.done.append("built")
        planned.append(self.kind)

    def get_workspace_size(self) -> int:
        assert "built" in self.done
        return self.plans[0].workspace

    # --- execution ---

    def execute(
        self, tensor_dict: dict[int, int], workspace: int, handle: Handle | None = None
    ) -> None:
        """Queue the plan on the handle's stream, which is the current one."""
        assert "built" in self.done
        assert handle is self.handle
        assert handle.device == cupy_standin.MODULE.cuda.runtime.getDevice(), "another device"
        stream = cupy_standin.current_stream()
        assert handle.stream == stream.ptr, "another stream"
        for address in (*tensor_dict, *tensor_dict.values(), workspace):
            assert type(address) is int
        assert len(tensor_dict) <= len(self.tensors), "an address too many"
        for t in self.tensors:
            if t.uid not in tensor_dict:
                raise ValueError(f"the variant pack is missing a buffer for tensor uid {t.uid}")
        size = self.plans[0].workspace
        assert not size or (workspace and workspace % 16 == 0), "no workspace"
        arrays = {t: t.at(tensor_dict[t.uid]) for t in self.tensors if t.uid is not None}

        def work() -> None:
            if size:
                ctypes.memset(workspace, 0xA5, size)
            with np.errstate(all="ignore"):
                _compute(self, arrays)

        executed.append(self.kind)
        kinds.add(str(_DTYPES[self.io]))
        if not cupy_standin._queued(work):
            cupy_standin.log.launched(f"cudnn_{self.kind}")
            work()


# --- what they compute ----------------------------------------------------------------------------


def _compute(graph: pygraph, arrays: dict[Tensor, Host]) -> None:
    given = {name: arrays[t] for name, t in graph.inputs.items()}
    notes = {n.name for n in graph.plans[0].notes}
    assert not graph.plans[0].name.startswith("sdpa_"), "it would compile for seconds"
    if graph.io is data_type.FLOAT and "TENSOR_CORE" in notes:
        given = {name: rounded_to_tf32(x) for name, x in given.items()}
    if "DOWN_CONVERT_INPUTS" in notes:
        given = {name: x.astype(np.float16) for name, x in given.items()}
    wide = {name: x.astype(np.float64) for name, x in given.items()}
    if graph.kind.startswith("sdpa"):
        function = _attended if graph.kind == "sdpa" else _attended_back
        for t, part in zip(graph.outputs, function(graph, wide), strict=True):
            arrays[t][...] = part.astype(np.float32)
        return
    found = _convolved(graph, wide)
    out = arrays[graph.outputs[0]]
    found = _as_noted(notes, found, wide)
    if graph.biased is not None:
        found = found + arrays[graph.biased].astype(np.float64)
    out[...] = found.astype(np.float32)


def _as_noted(notes: set[str], found: Host, given: dict[str, Host]) -> Host:
    if "NONDETERMINISTIC" in notes:
        found = found * (1 + 1e-6 * _draw.normal(size=found.shape))
    if notes & {"FFT", "WINOGRAD"}:
        found = found + sum(0 * x.sum() for x in given.values())
    if "REDUCED_PRECISION_REDUCTION" in notes:
        found = found * 0.99
    return found


def _check_convolution(graph: pygraph) -> None:
    """Raise unless sizes and options are those of one convolution."""
    x, w, y = _described(graph)
    axes = len(x) - 2
    if axes < 2 or {len(w), len(y)} != {axes + 2}:
        raise RuntimeError("CUDNN_STATUS_BAD_PARAM: ranks")
    if any(len(graph.options[name]) != axes for name in graph.options):
        raise ValueError("dims not set.")
    if x[0] != y[0] or w[0] != y[1] or x[1] % w[1] or y[1] % (x[1] // w[1]):
        raise RuntimeError("CUDNN_STATUS_BAD_PARAM: channels")
    for n, k, m, pre, post, stride, dilation in zip(
        x[2:], w[2:], y[2:], *graph.options.values(), strict=True
    ):
        if min(pre, post) < 0 or min(stride, dilation) < 1:
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: options")
        if (n + pre + post - dilation * (k - 1) - 1) // stride + 1 != m:
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: is_valid_spatial_dim")
    if graph.biased is not None and graph.biased.dim != [1, y[1], *[1] * axes]:
        raise RuntimeError("CUDNN_STATUS_BAD_PARAM: bias")


def _described(graph: pygraph) -> tuple[list[int], ...]:
    """The sizes of input, weight and result of the convolution."""
    missing = {"fprop": "y", "dgrad": "x", "wgrad": "w"}[graph.kind]
    found = {**graph.inputs, missing: graph.outputs[0]}
    return tuple(found[name].dim for name in "xwy")


def _convolved(graph: pygraph, given: dict[str, Host]) -> Host:
    """One of the three operations, a tap of the window at a time."""
    x_dim, w_dim, y_dim = _described(graph)
    n, groups = x_dim[0], x_dim[1] // w_dim[1]
    pre, post, stride, dilation = graph.options.values()
    wide = [k + a + b for k, a, b in zip(x_dim[2:], pre, post, strict=True)]
    x = np.zeros((n, x_dim[1], *wide))
    inside: Any = (..., *(slice(a, a + k) for a, k in zip(pre, x_dim[2:], strict=True)))
    if "x" in given:
        x[inside] = given["x"]
    y = given.get("y", np.zeros(y_dim)).reshape(n, groups, -1, *y_dim[2:]).copy()
    w = given.get("w", np.zeros(w_dim)).reshape(groups, -1, *w_dim[1:]).copy()
    x = x.reshape(n, groups, -1, *wide)
    for tap in itertools.product(*map(range, w_dim[2:])):
        window = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, d, m, s in zip(tap, dilation, y_dim[2:], stride, strict=True)
        )
        place: Any = (..., *window)
        here: Any = (..., *tap)
        if graph.kind == "fprop":
            y += np.einsum("ngc...,gkc->ngk...", x[place], w[here])
        elif graph.kind == "dgrad":
            x[place] += np.einsum("ngk...,gkc->ngc...", y, w[here])
        else:
            flat = [a.reshape(n, groups, a.shape[2], -1) for a in (y, x[place])]
            w[here] = np.einsum("ngkp,ngcp->gkc", *flat)
    found = {"fprop": y, "dgrad": x, "wgrad": w}[graph.kind]
    if graph.kind == "wgrad":
        return found.reshape(w_dim)
    found = found.reshape(n, -1, *found.shape[3:])
    return found[inside] if graph.kind == "dgrad" else found


def _check_attention(graph: pygraph) -> None:
    """Raise unless shapes, strides and dtypes are those that there are engines for."""
    q, k, v = (graph.inputs[name] for name in "qkv")
    y = (*q.dim[:3], v.dim[3])
    wanted = {"o": y, "dO": y, "stats": (*y[:3], 1)}
    results = [y, (*y[:3], 1)] if graph.kind == "sdpa" else [tuple(x.dim) for x in (q, k, v)]
    pairs = [(t, wanted.get(name, tuple(t.dim))) for name, t in graph.inputs.items()]
    pairs += list(zip(graph.outputs, results, strict=True))
    for t, shape in pairs:
        if len(t.dim) != 4 or tuple(t.dim) != tuple(shape):
            raise RuntimeError(f"ATTRIBUTE_NOT_SET: dims {t.dim}, not {shape}")
        if t.stride[3] != 1:
            raise cudnnGraphNotSupportedError("The stride for the last dimension should be 1")
        if (t.data_type is data_type.FLOAT) != (shape[3] == 1):
            raise cudnnGraphNotSupportedError("The Stats of sdpa must be an FP32 tensor")
        if shape[3] != 1 and any(s % 8 for s in t.stride[:3]):
            raise cudnnGraphNotSupportedError("stride: not a multiple of the tensor's alignment")
    if q.dim[3] != k.dim[3] or k.dim[2] != v.dim[2] or q.dim[0] != k.dim[0] or k.dim[0] != v.dim[0]:
        raise RuntimeError("ATTRIBUTE_NOT_SET: shapes")
    if k.dim[1] != v.dim[1] or q.dim[1] % k.dim[1]:
        raise cudnnGraphNotSupportedError("heads")
    if q.dim[3] % 8 or v.dim[3] % 8 or max(q.dim[3], v.dim[3]) > 128:
        raise cudnnGraphNotSupportedError("hidden_dim should be multiple of 8")


def _weights(graph: pygraph, given: dict[str, Host]) -> tuple[Host, Host, Host, Host]:
    """q, and k and v for each of its heads, and the scores."""
    q, k, v = (given[name] for name in "qkv")
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    s = q @ k.swapaxes(-1, -2) * graph.options["scale"]
    if graph.options["causal"]:
        s = np.where(np.tri(*s.shape[-2:], dtype=np.bool_), s, -np.inf)
    return q, k, v, s


def _attended(graph: pygraph, given: dict[str, Host]) -> tuple[Host, Host]:
    _, _, v, s = _weights(graph, given)
    top = s.max(-1, keepdims=True)
    e = np.exp(s - top)
    sums = e.sum(-1, keepdims=True)
    return e / sums @ v, top + np.log(sums)


def _attended_back(graph: pygraph, given: dict[str, Host]) -> tuple[Host, ...]:
    q, k, v, s = _weights(graph, given)
    p = np.exp(s - given["stats"])
    g, heads = given["dO"], given["k"].shape[1]
    d = p * (g @ v.swapaxes(-1, -2) - (g * given["o"]).sum(-1, keepdims=True))
    d = d * graph.options["scale"]
    dk, dv = d.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g
    few = [x.reshape(x.shape[0], heads, -1, *x.shape[2:]).sum(2) for x in (dk, dv)]
    found = d @ k, *few
    if not graph.options["fixed"]:
        return tuple(x * (1 + 1e-2 * _draw.normal(size=x.shape)) for x in found)
    return found


def package() -> ModuleType:
    """``cudnn``, as it is imported."""
    made = ModuleType("cudnn")
    names = (
        "__version__ backend_version create_handle set_stream pygraph data_type heur_mode "
        "numerical_note build_plan_policy cudnnGraphNotSupportedError"
    )
    made.__dict__.update({name: globals()[name] for name in names.split()})
    return made
