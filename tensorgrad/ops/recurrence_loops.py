"""The loops over time of recurrent layers, forward and backward, on arrays of one device.

Inside, batches lie in columns: the gates of a step are (gates * hidden, batch), each gate whole in
memory, and one product fills them. The input's part is one product for many steps, the weights'
gradients are products after the loop. Sigmoids are computed as 0.5 * tanh(x / 2) + 0.5: so
one call serves all gates, and halving the weights beforehand is exact.

Forward, a loop gives the primitive's value, flat, and what its gradient needs, unless ``keep`` says
that nobody will ask; backward, it gives one flat array of the parts that ``Sizes.parts`` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.backend.memory import empty
from tensorgrad.backend.namespace import Namespace
from tensorgrad.ops.sums import total

__all__: list[str] = []


class Sizes(NamedTuple):
    """Steps, batch, hidden size, size of the output, kind of layer, whether it runs from the end to
    the beginning, and whether there is a projection."""

    steps: int
    batch: int
    hidden: int
    out: int
    kind: str
    reverse: bool
    projects: bool

    @property
    def value(self) -> dict[str, tuple[int, ...]]:
        """The parts of the value: the first state and those of all steps, in one piece in which
        the state before each step lies where ``before`` says; of an LSTM also the last cell."""
        parts: dict[str, tuple[int, ...]] = {"h": (self.steps, self.batch, self.out)}
        first = {"first": (self.batch, self.out)}
        parts = {**parts, **first} if self.reverse else {**first, **parts}
        if self.kind == "lstm":
            parts["c"] = (self.batch, self.hidden)
        return parts

    def before(self, value: Any) -> Any:
        """From the value: the state before each step, (steps * batch, out)."""
        start = self.batch * self.out if self.reverse else 0
        count = self.steps * self.batch
        return value[start : start + count * self.out].reshape((count, self.out))

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The parts of what comes backward.

        x: the gradient of what the input's product gave, (steps, batch, gates * hidden); of a GRU
        beside it that of the state's product, hh, which differs. h, c: that of the initial state.
        projected: of a projection, that of its result.
        """
        gates = {"lstm": 4, "gru": 3}.get(self.kind, 1) * self.hidden
        parts: dict[str, tuple[int, ...]] = {"x": (self.steps, self.batch, gates)}
        if self.kind == "gru":
            parts["hh"] = parts["x"]
        parts["h"] = (self.batch, self.out)
        if self.kind == "lstm":
            parts["c"] = (self.batch, self.hidden)
        if self.projects:
            parts["projected"] = (self.steps, self.batch, self.out)
        return parts


def sizes_of(kind: str, x: Any, weight_hh: Any, weight_hr: Any, reverse: bool) -> Sizes:
    """The Sizes of a call of a primitive."""
    out = weight_hh.shape[1]
    hidden = out if weight_hr is None else weight_hr.shape[1]
    projects = weight_hr is not None
    return Sizes(x.shape[0], x.shape[1], hidden, out, kind, reverse, projects)


def cut(flat: Any, parts: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The parts of a flat array or tensor, which share its memory."""
    found, at = {}, 0
    for name, shape in parts.items():
        size = math.prod(shape)
        found[name] = flat[at : at + size].reshape(shape)
        at += size
    return found


def _flat(xp: Any, parts: dict[str, tuple[int, ...]], dtype: Any) -> Any:
    return empty(xp, (sum(math.prod(shape) for shape in parts.values()),), dtype)


def _steps(count: int, reverse: bool) -> range:
    return range(count - 1, -1, -1) if reverse else range(count)


def _state(xp: Any, h: Any, size: int, batch: int, dtype: Any) -> Any:
    """A state (batch, size), zeros if it is ``None``, as columns in memory of its own."""
    return xp.zeros((size, batch), dtype) if h is None else h.T.copy()


def _alive(xp: Any, lengths: Any, steps: int) -> Any:
    """Which sequences have not ended, (steps, batch); ``None`` where there are no lengths.

    Raises IndexError for lengths out of range; on a GPU, where looking would wait, nothing is said.
    """
    if lengths is None:
        return None
    if xp is np and lengths.size and not 0 < lengths.min() <= lengths.max() <= steps:
        raise IndexError(
            f"lengths must be integers from 1 to the number of steps, {steps}; got "
            f"{lengths.tolist()}"
        )
    return xp.arange(steps)[:, None] < lengths


#: So many numbers of the input's part of the gates are computed at a time, and stay in the cache.
_AT_A_TIME = 1 << 17


def _walk(xp: Any, x: Any, weight: Any, bias: Any, reverse: bool) -> Iterator[tuple[int, Any]]:
    """The steps in order, each with the input's part of its gates: (gates * hidden, batch)."""
    steps, batch, size = x.shape
    rows = weight.shape[0]
    count = min(steps, max(1, _AT_A_TIME // max(1, rows * batch)))
    memory = empty(xp, (rows * count * batch,), x.dtype)
    starts = range(0, steps, count)
    for start in reversed(starts) if reverse else starts:
        some = x[start : start + count]
        columns = some.shape[0] * batch
        part = memory[: rows * columns].reshape(rows, columns)
        xp.dot(weight, some.reshape(columns, size).T, out=part)
        if bias is not None:
            part += bias[:, None]
        part = part.reshape(rows, some.shape[0], batch)
        for k in _steps(some.shape[0], reverse):
            yield start + k, part[:, k]


def _added(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _check_arrays(xp: Any) -> None:
    if isinstance(xp, Namespace):
        xp.refuse("a recurrence over time is a loop of products")


def weights(xp: Any, d: Any, x: Any, before: Any) -> Any:
    """What gives the gradients of weights and biases, flat: ``d.T @ x``, ``d.T @ before``, and the
    sums of the columns of ``d``. Of the matrices, (steps * batch, ...), one may be ``None``."""
    _check_arrays(xp)
    found = [xp.dot(d.T, a).reshape(-1) for a in (x, before) if a is not None]
    return xp.concatenate([*found, total(xp, d, (0,))])


# --- RNN ------------------------------------------------------------------------------------------


def rnn_value(
    xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool, kind: str, keep: bool,
) -> Any:  # fmt: skip
    """``h = tanh(W x + U h + b)``, or with ReLU; nothing is kept besides the states."""
    _check_arrays(xp)
    steps, batch, hidden, *_ = sizes = sizes_of(kind, x, w_hh, None, reverse)
    y = _flat(xp, sizes.value, x.dtype)
    value = cut(y, sizes.value)
    alive = _alive(xp, lengths, steps)
    h = _state(xp, h, hidden, batch, x.dtype)
    value["first"][...] = h.T
    new = xp.empty_like(h)
    for t, part in _walk(xp, x, w_ih, _added(b_ih, b_hh), reverse):
        xp.dot(w_hh, h, out=new)
        new += part
        if kind == "rnn_tanh":
            xp.tanh(new, out=new)
        else:
            xp.maximum(new, 0, out=new)
        if alive is None:
            h, new = new, h
        else:
            xp.copyto(h, new, where=alive[t])
        value["h"][t] = h.T
    return y, ()


def rnn_back(
    xp: Any, g: Any, y: Any, c: Any, w_hh: Any, w_hr: Any, lengths: Any, *, sizes: tuple[Any, ...]
) -> Any:  # fmt: skip
    """The loop of ``rnn_value`` backward; see the head of this file."""
    _check_arrays(xp)
    size = Sizes(*sizes)
    flat = _flat(xp, size.parts, g.dtype)
    parts = cut(flat, size.parts)
    g, y = cut(g, size.value)["h"], cut(y, size.value)["h"]
    alive = _alive(xp, lengths, size.steps)
    dh = xp.zeros((size.hidden, size.batch), g.dtype)
    d, w_hh_t = xp.empty_like(dh), w_hh.T
    for t in _steps(size.steps, not size.reverse):
        dh += g[t].T
        if size.kind == "rnn_tanh":
            xp.multiply(y[t].T, y[t].T, out=d)
            xp.subtract(1, d, out=d)
            d *= dh
        else:
            xp.multiply(dh, y[t].T > 0, out=d)
        if alive is None:
            xp.dot(w_hh_t, d, out=dh)
        else:
            xp.copyto(d, 0, where=~alive[t])
            xp.copyto(dh, xp.dot(w_hh_t, d), where=alive[t])
        parts["x"][t] = d.T
    parts["h"][...] = dh.T
    return flat


# --- LSTM -----------------------------------------------------------------------------------------


def _lstm_order(xp: Any, w: Any, hidden: int) -> Any:
    """Weights of the gates i, f, g, o in the order i, f, o, g, with those of sigmoids halved."""
    found = xp.empty(w.shape, w.dtype)
    xp.multiply(w[: 2 * hidden], 0.5, out=found[: 2 * hidden])
    xp.multiply(w[3 * hidden :], 0.5, out=found[2 * hidden : 3 * hidden])
    found[3 * hidden :] = w[2 * hidden : 3 * hidden]
    return found


def lstm_value(
    xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool, kind: str, keep: bool,
) -> Any:  # fmt: skip
    """``c = f c + i g; h = o tanh(c)``, projected if there is a ``w_hr``.

    Kept are the gates (steps, 4 * hidden, batch) as i, f, o, g, and the cells.
    """
    _check_arrays(xp)
    steps, batch, hidden, width, *_ = sizes = sizes_of(kind, x, w_hh, w_hr, reverse)
    y = _flat(xp, sizes.value, x.dtype)
    value = cut(y, sizes.value)
    bias = _added(b_ih, b_hh)
    bias = bias if bias is None else _lstm_order(xp, bias, hidden)
    w_ih, w = _lstm_order(xp, w_ih, hidden), _lstm_order(xp, w_hh, hidden)
    alive = _alive(xp, lengths, steps)
    gates = empty(xp, (steps if keep else 1, 4 * hidden, batch), x.dtype)
    cells = empty(xp, (steps if keep else 2, hidden, batch), x.dtype)
    h = _state(xp, h, width, batch, x.dtype)
    value["first"][...] = h.T
    c = _state(xp, c, hidden, batch, x.dtype)
    through, inner = xp.empty_like(gates[0]), xp.empty_like(c)
    new = h if alive is None else xp.empty_like(h)
    shown = new if w_hr is None else inner
    for t, part in _walk(xp, x, w_ih, bias, reverse):
        gate, cell = gates[t % len(gates)], cells[t % len(cells)]
        xp.dot(w, h, out=through)
        xp.add(through, part, out=gate)
        xp.tanh(gate, out=gate)
        sigmoids = gate[: 3 * hidden]
        sigmoids *= 0.5
        sigmoids += 0.5
        xp.multiply(gate[:hidden], gate[3 * hidden :], out=inner)
        xp.multiply(gate[hidden : 2 * hidden], c, out=cell)
        cell += inner
        if alive is not None:
            xp.copyto(cell, c, where=~alive[t])
        c = cell
        xp.tanh(cell, out=inner)
        xp.multiply(gate[2 * hidden : 3 * hidden], inner, out=shown)
        if w_hr is not None:
            xp.dot(w_hr, inner, out=new)
        if alive is not None:
            xp.copyto(h, new, where=alive[t])
        value["h"][t] = h.T
    value["c"][...] = c.T
    return y, (gates, cells) if keep else ()


def lstm_back(
    xp: Any, g: Any, y: Any, c: Any, w_hh: Any, w_hr: Any, lengths: Any, gates: Any, cells: Any,
    *, sizes: tuple[Any, ...],
) -> Any:  # fmt: skip
    """The loop of ``lstm_value`` backward; see the head of this file."""
    _check_arrays(xp)
    size = Sizes(*sizes)
    steps, batch, n, width, *_ = size
    flat = _flat(xp, size.parts, g.dtype)
    parts = cut(flat, size.parts)
    given = cut(g, size.value)
    alive = _alive(xp, lengths, steps)
    first = _state(xp, c, n, batch, g.dtype)
    dc = given["c"].T.copy()
    dh = xp.zeros((width, batch), g.dtype)
    d = xp.empty((4 * n, batch), g.dtype)
    a, tanh, squares = xp.empty_like(dc), xp.empty_like(dc), xp.empty_like(d[: 2 * n])
    di, df, dg, do = (d[k * n : (k + 1) * n] for k in range(4))
    by_cell, w_hh_t = d[: 3 * n].reshape(3, n, batch), w_hh.T
    order = _steps(steps, not size.reverse)
    for t in order:
        gate = gates[t]
        xp.tanh(cells[t], out=tanh)
        i, f, o, z = gate.reshape(4, n, batch)
        before = first if t == order[-1] else cells[t + order.step]
        dh += given["h"][t].T
        if w_hr is not None:
            parts["projected"][t] = (dh if alive is None else dh * alive[t]).T
        shown = dh if w_hr is None else xp.dot(w_hr.T, dh)
        held = None if alive is None else dc.copy()
        xp.multiply(tanh, tanh, out=a)  # through h = o tanh(c) to the cell
        xp.subtract(1, a, out=a)
        a *= o
        a *= shown
        dc += a
        xp.multiply(o, o, out=a)
        xp.subtract(o, a, out=do)
        do *= tanh
        do *= shown
        xp.multiply(gate[: 2 * n], gate[: 2 * n], out=squares)
        xp.subtract(gate[: 2 * n], squares, out=d[: 2 * n])
        xp.multiply(z, z, out=a)
        xp.subtract(1, a, out=dg)
        di *= z
        df *= before
        dg *= i
        by_cell *= dc
        dc *= f
        if alive is None:
            xp.dot(w_hh_t, d, out=dh)
        else:
            xp.copyto(d, 0, where=~alive[t])
            xp.copyto(dc, held, where=~alive[t])
            xp.copyto(dh, xp.dot(w_hh_t, d), where=alive[t])
        parts["x"][t] = d.T
    parts["h"][...], parts["c"][...] = dh.T, dc.T
    return flat


# --- GRU ------------------------------------------------------------------------------------------


def _gru_order(xp: Any, w: Any, hidden: int) -> Any:
    """Weights of the gates r, z, n, with those of r and z, which are sigmoids, halved."""
    found = w.copy()
    found[: 2 * hidden] *= 0.5
    return found


def gru_value(
    xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    lengths: Any, reverse: bool, kind: str, keep: bool,
) -> Any:  # fmt: skip
    """``n = tanh(W x + r (U h + b)); h = (1 - z) n + z h``.

    Kept are the gates r, z, n (steps, 3 * hidden, batch), and what r multiplies.
    """
    _check_arrays(xp)
    steps, batch, hidden, *_ = sizes = sizes_of(kind, x, w_hh, None, reverse)
    y = _flat(xp, sizes.value, x.dtype)
    value = cut(y, sizes.value)
    b_hn = None if b_hh is None else b_hh[2 * hidden :, None]
    if b_hh is not None:  # that of n is multiplied by r; the others join the input's
        b_ih = xp.concatenate([_added(b_ih, b_hh)[: 2 * hidden], _rest(xp, b_ih, b_hh, hidden)])
    if b_ih is not None:
        b_ih = _gru_order(xp, b_ih, hidden)
    w_ih, w = _gru_order(xp, w_ih, hidden), _gru_order(xp, w_hh, hidden)
    alive = _alive(xp, lengths, steps)
    gates = empty(xp, (steps if keep else 1, 3 * hidden, batch), x.dtype)
    states = empty(xp, (len(gates), hidden, batch), x.dtype)
    h = _state(xp, h, hidden, batch, x.dtype)
    value["first"][...] = h.T
    through, new = xp.empty_like(gates[0]), xp.empty_like(h)
    for t, part in _walk(xp, x, w_ih, b_ih, reverse):
        gate, state = gates[t % len(gates)], states[t % len(gates)]
        both, n = gate[: 2 * hidden], gate[2 * hidden :]
        xp.dot(w, h, out=through)
        xp.add(through[: 2 * hidden], part[: 2 * hidden], out=both)
        xp.tanh(both, out=both)
        both *= 0.5
        both += 0.5
        if b_hn is None:
            state[...] = through[2 * hidden :]
        else:
            xp.add(through[2 * hidden :], b_hn, out=state)
        xp.multiply(gate[:hidden], state, out=n)
        n += part[2 * hidden :]
        xp.tanh(n, out=n)
        xp.subtract(h, n, out=new)
        new *= gate[hidden : 2 * hidden]
        new += n
        if alive is None:
            h, new = new, h
        else:
            xp.copyto(h, new, where=alive[t])
        value["h"][t] = h.T
    return y, (gates, states) if keep else ()


def _rest(xp: Any, b_ih: Any, b_hh: Any, hidden: int) -> Any:
    """The bias of the candidates that belongs to the input."""
    return xp.zeros_like(b_hh[2 * hidden :]) if b_ih is None else b_ih[2 * hidden :]


def gru_back(
    xp: Any, g: Any, y: Any, c: Any, w_hh: Any, w_hr: Any, lengths: Any, gates: Any, states: Any,
    *, sizes: tuple[Any, ...],
) -> Any:  # fmt: skip
    """The loop of ``gru_value`` backward; see the head of this file."""
    _check_arrays(xp)
    size = Sizes(*sizes)
    steps, batch, m, *_ = size
    flat = _flat(xp, size.parts, g.dtype)
    parts = cut(flat, size.parts)
    g, states_before = cut(g, size.value)["h"], size.before(y).reshape(steps, batch, m)
    alive = _alive(xp, lengths, steps)
    dh = xp.zeros((m, batch), g.dtype)
    d, inner = xp.empty((3 * m, batch), g.dtype), xp.empty((3 * m, batch), g.dtype)
    dr, dz, dn = (d[k * m : (k + 1) * m] for k in range(3))
    squares, a, w_hh_t = xp.empty_like(d[: 2 * m]), xp.empty_like(dh), w_hh.T
    for t in _steps(steps, not size.reverse):
        gate = gates[t]
        r, z, n = gate.reshape(3, m, batch)
        dh += g[t].T
        xp.multiply(gate[: 2 * m], gate[: 2 * m], out=squares)
        xp.subtract(gate[: 2 * m], squares, out=d[: 2 * m])
        xp.subtract(states_before[t].T, n, out=a)
        a *= dh
        dz *= a
        xp.multiply(n, n, out=a)
        xp.subtract(1, a, out=dn)
        dn *= dh
        xp.subtract(1, z, out=a)
        dn *= a
        dr *= states[t]
        dr *= dn
        inner[: 2 * m] = d[: 2 * m]
        xp.multiply(dn, r, out=inner[2 * m :])
        if alive is None:
            dh *= z
            dh += xp.dot(w_hh_t, inner, out=a)
        else:
            for half in (d, inner):
                xp.copyto(half, 0, where=~alive[t])
            xp.copyto(dh, dh * z + xp.dot(w_hh_t, inner), where=alive[t])
        parts["x"][t], parts["hh"][t] = d.T, inner.T
    parts["h"][...] = dh.T
    return flat
