"""Recurrent layers over a whole sequence, one direction at a time: RNN, LSTM, GRU."""

# The operators inside the rules come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import HALVES, INTEGERS, int64
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops import recurrence_loops as loops
from tensorgrad.ops import recurrence_routines as routines
from tensorgrad.ops.creation import arange, asarray, zeros
from tensorgrad.ops.elementwise import maximum, sigmoid, tanh, where
from tensorgrad.ops.linear_algebra import linear, matmul
from tensorgrad.ops.precision import half_to_float32
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import broadcast_to, concat, permute_dims, reshape, shape_of, stack
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["gru", "lstm", "rnn"]

#: The inputs of the primitives. Only an LSTM has ``c`` and ``w_hr``.
INPUTS = ("x", "h", "c", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "lengths")


# --- gradients ------------------------------------------------------------------------------------


def _gradient(name: str, parts: Mapping[str, Any], r: Any, env: Mapping[str, Any]) -> Any:
    """That of the input ``name``, from what the loop backward gave; of arrays or of tensors."""
    if name in ("h", "c"):
        return parts[name]
    x, sizes = env["x"], env["sizes"]
    count = sizes.steps * sizes.batch
    d = parts["hh" if "hh" in parts and name in ("w_hh", "b_hh") else "x"]
    d = reshape(d, (count, d.shape[2]))
    if name == "x":
        return reshape(matmul(d, env["w_ih"]), x.shape)
    if name == "w_ih":
        return matmul(d.T, reshape(x, (count, x.shape[2])))
    if name == "w_hh":
        return matmul(d.T, sizes.before(env["y"]))
    if name == "w_hr":
        gates, cells = r
        inner = gates[:, 2 * sizes.hidden : 3 * sizes.hidden] * tanh(cells)
        inner = reshape(permute_dims(inner, (0, 2, 1)), (count, sizes.hidden))
        return matmul(reshape(parts["projected"], (count, sizes.out)).T, inner)
    return total(d, axis=0)


def _backward(kind: str, back: Callable[..., Any]) -> Primitive:
    """The loop backward as a primitive, which the rules of all inputs share in a program."""
    return Primitive(
        f"{kind.partition('_')[0]}_backward", back,
        dict.fromkeys(("g", "y", "c", "w_hh", "w_hr", "lengths", "*kept")), fresh=True,
        loops=routines.back,
        kernel=f"{kind}_backward" if kind in ("lstm", "gru") else None,
        flops=lambda g, y, c, w_hh, *rest: 4 * rest[-1].size + 2 * y.size * w_hh.shape[0],
    )  # fmt: skip


def _forward(kind: str, value: Callable[..., Any]) -> Primitive:
    """The primitive for a kind of layer.

    Its value is flat, as ``recurrence_loops.Sizes.value`` says. Backward one loop serves all
    inputs. When the rules are recorded, the sequence is computed once more by elementary
    operations.
    """
    return Primitive(
        kind.partition("_")[0],
        value,
        {k: _rule(kind, k) if k != "lengths" else None for k in INPUTS},
        promotion="float",
        promoted=frozenset(range(len(INPUTS) - 1)),
        half_in_float32=True,
        residual=lambda reverse: None,
        together=partial(_together, kind),
        loops=routines.value,
        kernel=kind if kind in ("lstm", "gru") else None,
        fresh=True,
        flops=_flops,
        autocast="half",
    )


def _by_weights(name: str, parts: Mapping[str, Any], env: Mapping[str, Any]) -> Any:
    """The gradient of weights or a bias of the gates, of tensors. Those of all come from one pass,
    which the rules share in a program; of a GRU from two, since what the products gave differs."""
    apart, sizes = "hh" in parts, env["sizes"]
    d = parts["hh" if apart and name in ("w_hh", "b_hh") else "x"]
    rows = sizes.steps * sizes.batch
    d = reshape(d, (rows, d.shape[2]))
    x: Any = reshape(env["x"], (rows, env["x"].shape[2]))
    before: Any = sizes.before(env["y"])
    if apart:
        x, before = (None, before) if name in ("w_hh", "b_hh") else (x, None)
    flat = apply(WEIGHTS, (d, x, before), {})
    shapes = {"w_ih": x, "w_hh": before}
    cuts = {k: (d.shape[1], a.shape[1]) for k, a in shapes.items() if a is not None}
    found = loops.cut(flat, {**cuts, "b": (d.shape[1],)})
    return found["b" if name in ("b_ih", "b_hh") else name]


def _parts(kind: str, g: Any, r: Any, env: Mapping[str, Any]) -> dict[str, Any]:
    """What the loop backward gives."""
    given = [env[k] for k in ("y", "c", "w_hh", "w_hr", "lengths")]
    flat = apply(BACKWARD[kind], (g, *given, *r), {"sizes": tuple(env["sizes"])})
    return loops.cut(flat, env["sizes"].parts)


def _with_sizes(kind: str, env: dict[str, Any]) -> dict[str, Any]:
    sizes = loops.sizes_of(kind, env["x"], env["w_hh"], env["w_hr"], env["reverse"])
    return {**env, "sizes": sizes}


def _together(kind: str, g: Any, needed: Sequence[bool], saved: Mapping[str, Any]) -> list[Any]:
    """The gradients of all inputs, of arrays; those of 16-bit floats computed in float32."""
    half = g.dtype if g.dtype in HALVES else None
    r = saved["r"]
    env = _with_sizes(kind, {k: half_to_float32(v) for k, v in saved.items()})
    parts = _parts(kind, half_to_float32(g), r, env)
    found: dict[str, Any] = {}
    for k, wanted in zip(INPUTS, needed):
        if k == "b_hh" and wanted and found["b_ih"] is not None and "hh" not in parts:
            found[k] = found["b_ih"].copy()  # the same sum
        else:
            found[k] = _gradient(k, parts, r, env) if wanted else None
    return [d if half is None or d is None else d.astype(half) for d in found.values()]


def _rule(kind: str, wanted: str) -> Callable[..., Any]:
    def rule(
        g: Any, y: Any, r: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any,
        b_hh: Any, w_hr: Any, lengths: Any, reverse: bool,
    ) -> Any:  # fmt: skip
        env = dict(zip(INPUTS, (x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, lengths)))
        env.update(y=y, reverse=reverse)
        if r is None:
            return _recorded(kind, wanted, g, env)
        env = _with_sizes(kind, env)
        parts = _parts(kind, g, r, env)
        if wanted in ("w_ih", "w_hh", "b_ih", "b_hh"):
            return _by_weights(wanted, parts, env)
        return _gradient(wanted, parts, r, env)

    return rule


def _flops(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, lengths: Any,
    out: Any,
) -> int:  # fmt: skip
    weights = w_ih.size + w_hh.size + (0 if w_hr is None else w_hr.size)
    return int(x.shape[0] * x.shape[1]) * (2 * int(weights) + 3 * int(w_hh.shape[0])) + int(
        out.size
    )


WEIGHTS = Primitive(
    "recurrence_weights", loops.weights, {"d": None, "x": None, "before": None}, fresh=True,
    loops=routines.weights, kernel="recurrence_weights",
    flops=lambda d, x, before, out: 2 * d.shape[0] * out.size,
)  # fmt: skip
BACKWARD = {
    "rnn_tanh": _backward("rnn_tanh", loops.rnn_back),
    "rnn_relu": _backward("rnn_relu", loops.rnn_back),
    "lstm": _backward("lstm", loops.lstm_back),
    "gru": _backward("gru", loops.gru_back),
}
FORWARD = {
    "rnn_tanh": _forward("rnn_tanh", loops.rnn_value),
    "rnn_relu": _forward("rnn_relu", loops.rnn_value),
    "lstm": _forward("lstm", loops.lstm_value),
    "gru": _forward("gru", loops.gru_value),
}


# --- step by step ---------------------------------------------------------------------------------


def cell(
    kind: str, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any = None
) -> tuple[Any, Any]:
    """One step by elementary operations: the new ``h`` and, of an LSTM, the new ``c``."""
    a, b = linear(x, w_ih, b_ih), linear(h, w_hh, b_hh)
    n = w_hh.shape[0] // {"lstm": 4, "gru": 3}.get(kind, 1)
    if kind == "lstm":
        gates = a + b
        i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return (h if w_hr is None else linear(h, w_hr)), c
    if kind == "gru":
        gates = sigmoid(a[:, : 2 * n] + b[:, : 2 * n])
        new = tanh(a[:, 2 * n :] + gates[:, :n] * b[:, 2 * n :])
        return new + gates[:, n:] * (h - new), None
    return (tanh(a + b) if kind == "rnn_tanh" else maximum(a + b, 0.0)), None


def _elementary(
    kind: str, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool,
) -> Any:  # fmt: skip
    """The value of a primitive by elementary operations."""
    steps, batch = x.shape[:2]
    like = {"dtype": x.dtype, "device": x.device}
    sizes = loops.sizes_of(kind, x, w_hh, w_hr, reverse)
    h = zeros((batch, sizes.out), **like) if h is None else h
    c = zeros((batch, sizes.hidden), **like) if c is None and kind == "lstm" else c
    alive = None if lengths is None else _alive(x, lengths)
    first, states = h, [h] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        new, new_c = cell(kind, x[t], h, c, w_ih, w_hh, b_ih, b_hh, w_hr)
        if alive is not None:
            new = where(alive[t], new, h)
            new_c = None if c is None else where(alive[t], new_c, c)
        states[t] = h = new
        c = new_c
    flat = reshape(stack([*states, first] if reverse else [first, *states]), (-1,))
    return flat if c is None else concat([flat, reshape(c, (-1,))])


def _alive(x: Any, lengths: Any) -> Any:
    """Which sequences have not ended: (steps, batch, 1)."""
    steps = arange(x.shape[0], device=x.device)
    return reshape(steps, (-1, 1, 1)) < reshape(lengths, (1, -1, 1))


#: What was computed from a gradient while rules are recorded: those of all inputs come from one
#: tape, and wait here until their rules ask for them, or the gradient is gone.
_FOUND: dict[tuple[int, int], tuple[dict[str, Any], Any, Any]] = {}


def _recorded(kind: str, wanted: str, g: Any, env: Mapping[str, Any]) -> Any:
    """A gradient through the tape of the elementary operations."""
    key = id(g), id(env["y"].data)
    if key not in _FOUND or wanted not in _FOUND[key][0]:
        gone = weakref.ref(g, partial(_FOUND.pop, key))
        _FOUND[key] = _all_recorded(kind, g, env), gone, env["y"].data  # so that the key stays its
    found = _FOUND[key][0]
    d = found.pop(wanted)
    if not found:
        del _FOUND[key]
    return d


def _all_recorded(kind: str, g: Any, env: Mapping[str, Any]) -> dict[str, Any]:
    from tensorgrad.backward import run_backward  # which stands above the operations

    # Entries of their own: a tensor that was given twice has a gradient for each place.
    own: dict[str, Any] = {k: env[k] for k in INPUTS}
    places: dict[str, Any] = {}
    for k, v in own.items():
        if getattr(v, "node", None) is not None:
            own[k] = broadcast_to(v, v.shape)
            places[k] = own[k].node
    y = _elementary(kind, **{k: half_to_float32(v) for k, v in own.items()}, reverse=env["reverse"])
    found = run_backward(
        [(y.node, half_to_float32(g))],
        create_graph=True, retain_graph=True, targets=list(places.values()),
    )  # fmt: skip
    return {k: found[node] for k, node in places.items()}


# --- rows -----------------------------------------------------------------------------------------


def _checked(
    name: str, gates: int, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
    w_hr: Any,
) -> None:  # fmt: skip
    """Raise ShapeError unless the shapes fit together."""
    shape, recurrent = shape_of(x), shape_of(w_hh)
    if len(shape) != 3 or not shape[0]:
        raise ShapeError(
            f"{name}: the input must have shape (steps, batch, features), with one step or more; "
            f"got {shape}"
        )
    if len(recurrent) != 2 or recurrent[0] % gates:
        raise ShapeError(
            f"{name}: weight_hh must have shape ({gates} * hidden, hidden); got {recurrent}"
        )
    rows, out = recurrent
    wanted = {
        "weight_ih": (w_ih, (rows, shape[2])),
        "weight_hh": (w_hh, (rows, out if w_hr is not None else rows // gates)),
        "bias_ih": (b_ih, (rows,)),
        "bias_hh": (b_hh, (rows,)),
        "weight_hr": (w_hr, (out, rows // gates)),
        "h0": (h, (shape[1], out)),
        "c0": (c, (shape[1], rows // gates)),
    }
    for what, (value, should) in wanted.items():
        if value is not None and shape_of(value) != should:
            raise ShapeError(
                f"{name}: {what} must have shape {should} for an input of shape {shape} and "
                f"weight_hh of shape {recurrent}; got {shape_of(value)}"
            )


def _lengths(name: str, lengths: Any, x: Any) -> Any:
    """The lengths as integers beside ``x``; those of a list are checked."""
    steps, batch = shape_of(x)[:2]
    if isinstance(lengths, list | tuple) and not all(
        isinstance(n, int) and 0 < n <= steps for n in lengths
    ):
        raise ValueError(
            f"{name}: lengths must be integers from 1 to the number of steps, {steps}; got "
            f"{list(lengths)}"
        )
    dtype = int64 if isinstance(lengths, list | tuple) else None
    found = asarray(lengths, dtype=dtype, device=getattr(x, "device", None))
    if found.dtype not in INTEGERS:
        raise DtypeError(f"{name}: lengths must be integers; got {found.dtype}")
    if found.shape != (batch,):
        raise ShapeError(
            f"{name}: lengths must have one number for each sequence, shape ({batch},); got "
            f"{found.shape}"
        )
    return found


def _run(
    kind: str, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Outputs of all steps, the last state and, of an LSTM, the last cell."""
    name, gates = kind.partition("_")[0], {"lstm": 4, "gru": 3}.get(kind, 1)
    _checked(name, gates, x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr)
    alive = None
    if lengths is not None:
        x = asarray(x) if not hasattr(x, "node") else x
        lengths = _lengths(name, lengths, x)
        alive = _alive(x, lengths)
        x = where(alive, x, 0.0)  # what lies behind the end is never computed with
    inputs = x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, lengths
    keep = current_mode().grad and any(getattr(a, "node", None) is not None for a in inputs)
    attrs = {"reverse": bool(reverse), "kind": kind, "keep": keep}
    flat = apply(FORWARD[kind], inputs, attrs)
    sizes = loops.sizes_of(kind, x, w_hh, w_hr, reverse)
    parts = loops.cut(flat, sizes.value)
    states = parts["h"]
    last = states[0 if reverse else -1]
    y = states if alive is None else where(alive, states, 0.0)
    return (y, last, parts["c"]) if "c" in parts else (y, last)


def _walked(kind: str, x: Any, h: Any, c: Any, lengths: Any, reverse: bool, *weights: Any) -> Any:
    """What a row gives, by NumPy, a sequence and a step at a time."""
    given: list[Any] = [np.zeros(()) if w is None else w for w in weights]
    w_ih, w_hh, b_ih, b_hh, w_hr = given
    rows, out = w_hh.shape
    n = rows // {"lstm": 4, "gru": 3}.get(kind, 1)
    steps, batch, _ = x.shape
    y = np.zeros((steps, batch, out))
    h = np.zeros_like(y[0]) if h is None else h.copy()
    c = np.zeros((batch, n)) if c is None else c.copy()
    for k in range(batch):
        order = range(steps if lengths is None else lengths[k])
        for t in reversed(order) if reverse else order:
            a, b = w_ih @ x[t, k] + b_ih, w_hh @ h[k] + b_hh
            s = 1 / (1 + np.exp(-a - b))
            if kind == "lstm":
                c[k] = s[n : 2 * n] * c[k] + s[:n] * np.tanh(a + b)[2 * n : 3 * n]
                new = s[3 * n :] * np.tanh(c[k])
                h[k] = new if weights[4] is None else w_hr @ new
            elif kind == "gru":
                new = np.tanh(a[2 * n :] + s[:n] * b[2 * n :])
                h[k] = (1 - s[n : 2 * n]) * new + s[n : 2 * n] * h[k]
            else:
                h[k] = np.tanh(a + b) if kind == "tanh" else np.maximum(a + b, 0)
            y[t, k] = h[k]
    return (y, h, c) if kind == "lstm" else (y, h)


@operation(
    cases=[
        lambda s: s(
            s.real(3, 2, 3), s.real(2, 3), s.real(2, 2), s.real(2), s.real(2), s.real(2, 2),
        ),
        lambda s: s(
            s.real(3, 2, 3), s.real(2, 3), s.real(2, 2), nonlinearity="relu", reverse=True,
            lengths=[1, 3],
        ),
    ],
    reference=lambda x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, nonlinearity="tanh",
    lengths=None, reverse=False: _walked(
        nonlinearity, x, h0, None, lengths, reverse, w_ih, w_hh, b_ih, b_hh, None
    ),
    torch=None,
    namespace="nn.functional",
    method=False,
    primitive=FORWARD["rnn_tanh"],
)  # fmt: skip
def rnn(
    x: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    h0: Any = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """``h = tanh(W_ih x + b_ih + W_hh h + b_hh)`` over a sequence (Elman, 1990).

    x: (steps, batch, features). weight_ih: (hidden, features). weight_hh: (hidden, hidden).
    bias_ih, bias_hh: (hidden,), or ``None``. h0: (batch, hidden), or ``None`` for zeros.
    nonlinearity: "tanh" or "relu".
    lengths: how many steps each sequence has, (batch,); behind its end outputs are 0.
    reverse: from the last step, or the end of each sequence, to the first.

    Returns all states (steps, batch, hidden) and the last one. Raises ShapeError for shapes that
    do not fit, ValueError for another nonlinearity, or lengths in a list that are out of range;
    IndexError for those in a tensor, which on a GPU are not looked at.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'rnn: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
    weights = weight_ih, weight_hh, bias_ih, bias_hh, None
    y, h = _run(f"rnn_{nonlinearity}", x, h0, None, *weights, lengths, reverse)
    return y, h


@operation(
    cases=[
        lambda s: s(
            s.real(3, 2, 3), s.real(8, 3), s.real(8, 2), s.real(8), s.real(8), s.real(2, 2),
            s.real(2, 2),
        ),
        lambda s: s(s.real(2, 3, 2), s.real(8, 2), s.real(8, 2), reverse=True, lengths=[2, 1, 2]),
        lambda s: s(
            s.real(3, 2, 2), s.real(12, 2), s.real(12, 2), s.real(12), s.real(12), s.real(2, 2),
            s.real(2, 3), s.real(2, 3), lengths=[2, 3],
        ),
    ],
    reference=lambda x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, c0=None, w_hr=None,
    lengths=None, reverse=False: _walked(
        "lstm", x, h0, c0, lengths, reverse, w_ih, w_hh, b_ih, b_hh, w_hr
    ),
    torch=None,
    namespace="nn.functional",
    method=False,
    primitive=FORWARD["lstm"],
)  # fmt: skip
def lstm(
    x: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    h0: Any = None,
    c0: Any = None,
    weight_hr: Any = None,
    *,
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory over a sequence (Hochreiter and Schmidhuber, 1997; Gers, 2000).

    ``i, f, g, o = W_ih x + b_ih + W_hh h + b_hh``; ``c = sigmoid(f) c + sigmoid(i) tanh(g)``;
    ``h = sigmoid(o) tanh(c)``, or W_hr times that (Sak and others, 2014).

    weight_ih: (4 * hidden, features). weight_hh: (4 * hidden, hidden). bias_ih, bias_hh:
    (4 * hidden,), or ``None``. weight_hr: (out, hidden), or ``None``: with it ``h`` has size
    ``out``. h0: (batch, hidden), c0: the same; ``None`` for zeros.
    x, lengths, reverse and errors: as in ``rnn``.

    Returns all states (steps, batch, hidden), the last state and the last cell.
    """
    weights = weight_ih, weight_hh, bias_ih, bias_hh, weight_hr
    y, h, c = _run("lstm", x, h0, c0, *weights, lengths, reverse)
    return y, h, c


@operation(
    cases=[
        lambda s: s(
            s.real(3, 2, 3), s.real(6, 3), s.real(6, 2), s.real(6), s.real(6), s.real(2, 2)
        ),
        lambda s: s(s.real(3, 2, 2), s.real(6, 2), s.real(6, 2), lengths=[3, 2]),
        lambda s: s(s.real(2, 2, 2), s.real(6, 2), s.real(6, 2), None, s.real(6), reverse=True),
    ],
    reference=lambda x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, lengths=None,
    reverse=False: _walked(
        "gru", x, h0, None, lengths, reverse, w_ih, w_hh, b_ih, b_hh, None
    ),
    torch=None,
    namespace="nn.functional",
    method=False,
    primitive=FORWARD["gru"],
)  # fmt: skip
def gru(
    x: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    h0: Any = None,
    *,
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent units over a sequence (Cho and others, 2014).

    ``r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)``;
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``; ``h = (1 - z) n + z h``.

    weight_ih: (3 * hidden, features). weight_hh: (3 * hidden, hidden). bias_ih, bias_hh:
    (3 * hidden,), or ``None``. x, h0, lengths, reverse, results and errors: as in ``rnn``.
    """
    weights = weight_ih, weight_hh, bias_ih, bias_hh, None
    y, h = _run("gru", x, h0, None, *weights, lengths, reverse)
    return y, h
