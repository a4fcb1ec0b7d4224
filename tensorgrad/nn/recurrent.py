"""Recurrent layers and their cells: RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from tensorgrad.errors import ShapeError
from tensorgrad.nn import init
from tensorgrad.nn.fit import Misfit, last_axis
from tensorgrad.nn.module import Module, Parameter, check_sizes
from tensorgrad.nn.utils.rnn import PackedSequence, lengths_of, packed_again, padded
from tensorgrad.ops.creation import empty, zeros
from tensorgrad.ops.indexing import take
from tensorgrad.ops.random import Generator, dropout
from tensorgrad.ops.recurrence import cell, gru, lstm, rnn
from tensorgrad.ops.shaping import concat, expand_dims, stack, swapaxes
from tensorgrad.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

#: What goes in, the states at the beginning and the end: one tensor, or an LSTM's pair.
State = Tensor | tuple[Tensor, Tensor]


class _Recurrent(Module):
    """What the three layers have in common; see LSTM."""

    _gates = 1
    _output_argument = "hidden_size"
    # Of the first layer, for tools that look for attributes; the others are made alike.
    weight_ih_l0: Parameter
    weight_hh_l0: Parameter
    bias_ih_l0: Parameter
    bias_hh_l0: Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: str | None,
        dtype: Any,
        generator: Generator | None,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must lie in [0, 1], got {dropout!r}")
        if not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ValueError(
                f"{name}: proj_size must be below hidden_size, {hidden_size}, or 0 for no "
                f"projection; got {proj_size!r}"
            )
        if dropout and num_layers == 1:
            warnings.warn(
                f"{name}: dropout lies between layers, so with num_layers=1 it does nothing",
                stacklevel=3,
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.generator = generator
        if bidirectional or proj_size:  # then the output has another size
            vars(self)["_output_argument"] = ""
        out = proj_size or hidden_size
        rows = self._gates * hidden_size
        for layer in range(num_layers):
            size = input_size if layer == 0 else out * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {}
                shapes.update(weight_ih=(rows, size), weight_hh=(rows, out))
                if bias:
                    shapes.update(bias_ih=(rows,), bias_hh=(rows,))
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for what, shape in shapes.items():
                    value = Parameter(empty(shape, device=device, dtype=dtype))
                    self.register_parameter(what + suffix, value)
        self.reset_parameters(generator)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values, evenly over ``1 / sqrt(hidden_size)`` to both sides of 0."""
        limit = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -limit, limit, generator=generator)

    def forward(
        self, x: Tensor | PackedSequence, hx: State | None = None, lengths: Any = None
    ) -> tuple[Any, Any]:
        """The outputs of all steps of the last layer, and the last states of all layers.

        x: (steps, batch, input_size), (batch, steps, input_size) with ``batch_first``,
            (steps, input_size) for one sequence, or a PackedSequence.
        hx: the first states, (layers * directions, batch, size), a pair of them for an LSTM;
            zeros if ``None``. For one sequence without the axis of the batch.
        lengths: how many steps each sequence has, (batch,), a list or a tensor of integers: behind
            the end outputs are 0, and states stay what they were; backwards one begins there.

        Raises ShapeError for shapes that do not fit.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ValueError(
                    f"{type(self).__name__}: a PackedSequence has lengths of its own; leave out "
                    "lengths="
                )
            return self._packed(x, hx)
        self._check(x, lengths)
        single = x.ndim == 2
        states = self._states(hx, x, single)
        if single:
            x = expand_dims(x, 1)
        elif self.batch_first:
            x = swapaxes(x, 0, 1)
        y, last = self._layers(x, states, lengths)
        if single:
            return y[:, 0], self._given_back([s[:, 0] for s in last])
        return swapaxes(y, 0, 1) if self.batch_first else y, self._given_back(last)

    def _layers(self, x: Tensor, states: Any, lengths: Any) -> tuple[Tensor, list[Tensor]]:
        """All layers on (steps, batch, features), and their last states, stacked."""
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = dropout(x, self.dropout, generator=self.generator)
            outputs = []
            for backwards, suffix in enumerate(self._suffixes(layer)):
                first = () if states is None else tuple(s[len(ends)] for s in states)
                y, *last = self._run(
                    x, self._weights(suffix), first, lengths=lengths, reverse=bool(backwards)
                )
                outputs.append(y)
                ends.append(tuple(last))
            x = outputs[0] if len(outputs) == 1 else concat(outputs, axis=-1)
        return x, [stack(column) for column in zip(*ends, strict=True)]

    def _weights(self, suffix: str) -> list[Tensor | None]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, name + suffix, None) for name in names]

    def _run(self, x: Tensor, weights: Any, first: Any, **options: Any) -> tuple[Tensor, ...]:
        """One direction of one layer."""
        raise NotImplementedError

    def _packed(self, x: PackedSequence, hx: State | None) -> tuple[PackedSequence, Any]:
        inside = padded(x)
        self._check(inside, None)
        states = self._states(hx, inside, False, batch_axis=1)
        if states is not None and x.sorted_indices is not None:
            order = x.sorted_indices
            states = [take(s, order, axis=1) for s in states]
        y, last = self._layers(inside, states, Tensor(lengths_of(x), device=inside.device))
        if x.unsorted_indices is not None:
            back = x.unsorted_indices
            last = [take(s, back, axis=1) for s in last]
        return packed_again(y, x), self._given_back(last)

    def _given_back(self, last: list[Tensor]) -> Any:
        return last[0]

    def _state_sizes(self) -> list[int]:
        return [self.hidden_size]

    def _states(
        self, hx: Any, x: Tensor, single: bool, batch_axis: int | None = None
    ) -> list[Tensor] | None:
        """The first states as (layers * directions, batch, size) each."""
        if hx is None:
            return None
        sizes, name = self._state_sizes(), type(self).__name__
        given = [hx] if len(sizes) == 1 else list(hx) if isinstance(hx, tuple | list) else []
        if len(given) != len(sizes) or not all(isinstance(s, Tensor) for s in given):
            raise TypeError(
                f"{name}: hx must be "
                + ("a tensor" if len(sizes) == 1 else "a pair of tensors, (h0, c0)")
                + f"; got {type(hx).__name__}"
            )
        axis = int(not self.batch_first) if batch_axis is None else batch_axis
        count = self.num_layers * (1 + self.bidirectional)
        found = []
        for what, s, size in zip(("h0", "c0"), given, sizes):
            wanted = (count, size) if single else (count, x.shape[axis], size)
            if s.shape != wanted:
                raise ShapeError(
                    f"{name}: {what} must have shape {wanted} (layers * directions, "
                    f"{'' if single else 'batch, '}size) for an input of shape {x.shape}; got "
                    f"{s.shape}"
                )
            found.append(expand_dims(s, 1) if single else s)
        return found

    def _check(self, x: Any, lengths: Any) -> None:
        name = type(self).__name__
        shape: tuple[int, ...] = getattr(x, "shape", ())
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: the input must have shape {self._wanted()}, or (steps, "
                f"{self.input_size}) for one sequence; got {shape}"
            )
        if len(shape) == 2 and lengths is not None:
            raise ShapeError(
                f"{name}: lengths go with a batch of sequences, {self._wanted()}; got {shape}"
            )

    def _wanted(self) -> str:
        axes = "batch, steps" if self.batch_first else "steps, batch"
        return f"({axes}, {self.input_size})"

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        if len(x.shape) not in (2, 3):
            return Misfit(None, f"the input has shape {x.shape}; it must have shape "
                          f"{self._wanted()}", "")  # fmt: skip
        found = last_axis(x, "input_size", self.input_size, 0)
        if found is None:
            return None
        count = self.num_layers * (1 + self.bidirectional)
        batch = () if len(x.shape) == 2 else (x.shape[int(not self.batch_first)],)
        sizes = self._state_sizes()
        last = [(count, *batch, size) for size in sizes]
        y = (*x.shape[:-1], sizes[0] * (1 + self.bidirectional))
        return replace(found, output=[y, last if len(last) > 1 else last[0]])

    def extra_repr(self) -> str:
        """The sizes, and the options that are not at their defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        defaults: dict[str, Any] = {
            "proj_size": 0, "num_layers": 1, "nonlinearity": "tanh", "bias": True,
            "batch_first": False, "dropout": 0.0, "bidirectional": False,
        }  # fmt: skip
        for name, value in defaults.items():
            now = getattr(self, name, value)
            if now != value:
                text += f", {name}={now!r}"
        return text


class RNN(_Recurrent):
    """``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``, step by step (Elman, 1990).

    nonlinearity: "tanh" or "relu". The other arguments, parameters and errors are those of LSTM.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        _check_nonlinearity("RNN", nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype, generator,
        )  # fmt: skip

    def _run(self, x: Tensor, weights: Any, first: Any, **options: Any) -> tuple[Tensor, ...]:
        return rnn(x, *weights, *first, nonlinearity=self.nonlinearity, **options)


class LSTM(_Recurrent):
    """Long short-term memory, step by step (Hochreiter and Schmidhuber, 1997).

    input_size: of the last axis of the input. hidden_size: of the states.
    num_layers: each layer after the first takes the outputs of the one before it.
    bias: False for layers without.
    batch_first: the batch is axis 0 of input and output, the steps are axis 1. States stay
        (layers * directions, batch, size).
    dropout: in training, the probability with which each output of a layer but the last is left
        out.
    bidirectional: a second set of weights runs from the end to the beginning; the outputs of both
        are joined along the last axis.
    proj_size: multiply the states by a matrix, so that they have this size; 0 for no projection
        (Sak and others, 2014).
    device, dtype: of the parameters; the defaults if ``None``.
    generator: the source of the initial values and of dropout's masks.

    The parameters are weight_ih_l0 (4 * hidden_size, input_size), weight_hh_l0, bias_ih_l0,
    bias_hh_l0, weight_hr_l0 with a projection; l1, l2, ... are the further layers, and the names of
    the second direction end in _reverse. The gates come in the order i, f, g, o, as in PyTorch.
    All begin spread evenly over ``1 / sqrt(hidden_size)`` to both sides of 0.

    Returns the outputs and the pair of last states and last cells. Raises ValueError for sizes that
    are not positive integers, or a dropout outside of [0, 1].
    """

    _gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype, generator,
        )  # fmt: skip

    def _run(self, x: Tensor, weights: Any, first: Any, **options: Any) -> tuple[Tensor, ...]:
        w_ih, w_hh, b_ih, b_hh, w_hr = weights
        h, c = first or (None, None)
        return lstm(x, w_ih, w_hh, b_ih, b_hh, h, c, w_hr, **options)

    def _weights(self, suffix: str) -> list[Tensor | None]:
        return [*super()._weights(suffix), getattr(self, "weight_hr" + suffix, None)]

    def _given_back(self, last: list[Tensor]) -> Any:
        return last[0], last[1]

    def _state_sizes(self) -> list[int]:
        return [self.proj_size or self.hidden_size, self.hidden_size]


class GRU(_Recurrent):
    """Gated recurrent units, step by step (Cho and others, 2014).

    The gates come in the order r, z, n, as in PyTorch: weight_ih_l0 is (3 * hidden_size,
    input_size). The arguments, the other parameters and errors are those of LSTM.
    """

    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype, generator,
        )  # fmt: skip

    def _run(self, x: Tensor, weights: Any, first: Any, **options: Any) -> tuple[Tensor, ...]:
        return gru(x, *weights, *first, **options)


# --- cells ----------------------------------------------------------------------------------------


def _check_nonlinearity(name: str, nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'{name}: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')


class _Cell(Module):
    """What the three cells have in common; see LSTMCell."""

    _gates = 1
    _kind = "rnn_tanh"
    _shown = ("input_size", "hidden_size", "bias")
    _output_argument = "hidden_size"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: str | None,
        dtype: Any,
        generator: Generator | None,
    ) -> None:
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, options = self._gates * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(empty((rows, input_size), **options))
        self.weight_hh = Parameter(empty((rows, hidden_size), **options))
        self.bias_ih = Parameter(empty((rows,), **options)) if bias else None
        self.bias_hh = Parameter(empty((rows,), **options)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new initial values, evenly over ``1 / sqrt(hidden_size)`` to both sides of 0."""
        limit = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -limit, limit, generator=generator)

    def _step(self, x: Tensor, *states: Tensor | None) -> tuple[Any, Any]:
        """The new states, for inputs with or without an axis of the batch."""
        name = type(self).__name__
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: the input must have shape (batch, {self.input_size}) or "
                f"({self.input_size},); got {x.shape}"
            )
        wanted = (*x.shape[:-1], self.hidden_size)
        found = []
        for state in states:
            if state is None:
                state = zeros(wanted, dtype=x.dtype, device=x.device)
            if not hasattr(state, "shape"):
                raise TypeError(
                    f"{name}: the state must be "
                    + ("a tensor" if len(states) == 1 else "a pair of tensors, (h, c)")
                    + f"; got {type(state).__name__}"
                )
            if state.shape != wanted:
                raise ShapeError(
                    f"{name}: the state must have shape {wanted} for an input of shape {x.shape}; "
                    f"got {state.shape}"
                )
            found.append(state if x.ndim == 2 else expand_dims(state, 0))
        h, c = (*found, None)[:2]
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        h, c = cell(self._kind, x if x.ndim == 2 else expand_dims(x, 0), h, c, *weights)
        return (h, c) if x.ndim == 2 else (h[0], None if c is None else c[0])

    def _misfit(self, x: Tensor, *others: Any) -> Misfit | None:
        return last_axis(x, "input_size", self.input_size, self.hidden_size)


class RNNCell(_Cell):
    """One step of an RNN: ``tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    nonlinearity: "tanh" or "relu". The other arguments, parameters and errors: as in LSTMCell.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        _check_nonlinearity("RNNCell", nonlinearity)
        self.nonlinearity = nonlinearity
        self._kind = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, device, dtype, generator)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        """``x`` (batch, input_size) and the state (batch, hidden_size), zeros if ``None``."""
        h: Tensor = self._step(x, hx)[0]
        return h


class LSTMCell(_Cell):
    """One step of an LSTM.

    input_size, hidden_size: of the last axes of input and state. bias: False for none.
    device, dtype, generator: as in Linear.

    The parameters are weight_ih (4 * hidden_size, input_size), weight_hh, bias_ih and bias_hh, with
    the gates in the order i, f, g, o, as in PyTorch; they begin as those of LSTM. Raises ValueError
    for sizes that are not positive integers.
    """

    _gates = 4
    _kind = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, generator)

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """``x`` (batch, input_size) and the pair of state and cell, (batch, hidden_size) each."""
        if hx is None:
            return self._step(x, None, None)
        if not isinstance(hx, tuple | list) or len(hx) != 2:
            raise TypeError(
                "LSTMCell: the state must be a pair of tensors, (h, c); got "
                + (f"{len(hx)} of them" if isinstance(hx, tuple | list) else type(hx).__name__)
            )
        return self._step(x, *hx)


class GRUCell(_Cell):
    """One step of a GRU.

    The parameters have the gates in the order r, z, n, as in PyTorch: weight_ih is
    (3 * hidden_size, input_size). The arguments, the other parameters and errors are those of
    LSTMCell.
    """

    _gates = 3
    _kind = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, generator)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        """``x`` (batch, input_size) and the state (batch, hidden_size), zeros if ``None``."""
        h: Tensor = self._step(x, hx)[0]
        return h
