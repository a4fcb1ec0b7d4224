"""A training step: forward, backward and update, as one program or two."""

from __future__ import annotations

import contextlib
import itertools
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import FunctionType
from typing import Any

import numpy as np

from tensorgrad import nn, program
from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import CompileError, TensorgradError
from tensorgrad.nn import Module, functional
from tensorgrad.ops import concatenate
from tensorgrad.ops.precision import autocast
from tensorgrad.optim import ExponentialMovingAverage, GradScaler, Optimizer
from tensorgrad.optim.clip import clip_gradients
from tensorgrad.optim.scaler import unscale
from tensorgrad.tensor import Tensor

_Stage = Callable[..., Any]


@dataclass(slots=True)
class Parts:
    """What a step consists of, each as for the Trainer."""

    model: Module
    optimizer: Optimizer
    loss: Callable[[Tensor, Tensor], Tensor]
    prepare: Callable[..., Any] | None
    penalty: Callable[[], Tensor] | None
    average: ExponentialMovingAverage | None


_objects = operator.attrgetter(*(field.name for field in fields(Parts)))

#: Changes the gradients of an optimizer's parameters, between the backward pass and the update.
GradientTransform = Callable[[Optimizer], None]


#: Executor -> how it runs a step, in words.
_HOW = {
    "native": "as a compiled program",
    "numpy": "as a program of NumPy calls that is not compiled",
    "cuda": "as a compiled program on a GPU",
    "python": "in Python, not compiled",
    "": "in no way yet",
}


def prepared(prepare: Callable[..., Any] | None, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The inputs of the model, made of those of a batch."""
    if prepare is None:
        return inputs
    found = prepare(*inputs)
    return found if isinstance(found, tuple | list) else (found,)


class Step:
    """Runs training steps; what it is made of is looked up in each, and captured when it changes.

    accumulate, clip_norm, precision, compile: as for the Trainer.

    The update depends on whether the gradients are finite only where losses are scaled; then
    forward and backward are one program, the update another, and Python decides between them.
    """

    def __init__(
        self, accumulate: int, clip_norm: float | None, precision: str | None, compile: bool
    ) -> None:
        if not isinstance(accumulate, int) or accumulate < 1:
            raise TensorgradError(
                f"Trainer: accumulate must be a whole number from 1; got {accumulate!r}"
            )
        if clip_norm is not None and not clip_norm > 0:
            raise TensorgradError(f"Trainer: clip_norm must be above 0; got {clip_norm!r}")
        if precision not in (None, "float32", "float16", "bfloat16"):
            raise TensorgradError(
                f'Trainer: precision must be "float32", "float16" or "bfloat16"; got {precision!r}'
            )
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self._transforms: Sequence[GradientTransform] = ()
        if clip_norm is not None:
            self._transforms = (_clipping(clip_norm),)
        self.precision = None if precision == "float32" else precision
        self.compile = compile
        self.scaler: GradScaler | None = None
        if precision == "float16":
            self.scaler = GradScaler()
        #: 1 if the last gradients were not finite, where losses are scaled
        self._found = Tensor(0.0, dtype="float32", device="cpu")
        self._made_of: tuple[Any, ...] | None = None
        self._device: str | None = None
        self._stages: tuple[_Stage, _Stage | None] = (_nothing, None)
        #: why the step runs as it is for good: a check found that its program was wrong
        self.dropped = ""
        self._executor = ""  # that of the run that is resumed

    def moved_to(self, device: str) -> None:
        """The model is on this device now: what is made for another one is made anew."""
        if device != self._device:
            self._device, self._made_of = device, None

    def cast(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, products are computed in the precision asked for."""
        return contextlib.nullcontext() if self.precision is None else autocast(self.precision)

    def __call__(self, parts: Parts, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The loss and the output of a step on ``batch``."""
        made_of = _objects(parts)
        if made_of != self._made_of:  # a comparison of tuples looks at identity first
            self._made_of = made_of
            self._stages = self._new_stages(parts, self.compile and not self.dropped)
        found = self._run(batch)
        if self._executor:
            self._compare_executor()
        return found

    def _compare_executor(self) -> None:
        before, self._executor = self._executor, ""
        now = self.executor
        if now != before:
            warnings.warn(
                f"the run that is resumed computed its steps {_HOW[before]}, and here they run "
                f"{_HOW[now]}{self._why()}: from here on the last bits are not those of an "
                "uninterrupted run",
                stacklevel=5,
            )

    def _why(self) -> str:
        """Why the program of the step is not compiled, where that is known."""
        first = self._stages[0]
        return f" ({first.reason})" if isinstance(first, program.Compiled) and first.reason else ""

    @property
    def executor(self) -> str:
        """What computes the steps: "native", "numpy", "cuda", or "python" where none is compiled.

        Empty before the first step.
        """
        first = self._stages[0]
        if isinstance(first, program.Compiled):
            return first.executor
        return "" if first is _nothing else "python"

    @property
    def source(self) -> str:
        """The code that the steps are run by. Raises CompileError where none is compiled."""
        first = self._stages[0]
        if not isinstance(first, program.Compiled) or first.dropped:
            raise CompileError("the step runs as it is, or was not run yet; there is no code of it")
        return first.source()

    def compiled_state(self) -> dict[str, str]:
        """What a resumed run has to know of how the steps were computed."""
        for stage in self._stages:
            if isinstance(stage, program.Compiled):
                self.dropped = self.dropped or stage.dropped
        return {"executor": self._executor or self.executor, "dropped": self.dropped}

    def resume(self, state: Mapping[str, str]) -> None:
        """Compute the steps as the run did that is resumed, as far as that can be done here."""
        self.dropped, self._executor = state["dropped"], state["executor"]
        self._made_of = None

    def _run(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        first, update = self._stages
        if update is None or self.scaler is None:
            found: tuple[Tensor, Tensor] = first(*batch)
            return found
        # A scale that has become too large shows itself by an overflow: nothing to warn of.
        with np.errstate(over="ignore", invalid="ignore"):
            found = first(*batch)
        finite = not self._found.item()  # waits for a GPU
        if finite:
            update()
        self.scaler.adjust(finite)
        return found

    def _new_stages(self, parts: Parts, compiled: bool) -> tuple[_Stage, _Stage | None]:
        optimizer, average = parts.optimizer, parts.average
        scale, judged = None, list[GradientTransform]()
        if self.scaler is not None:
            device = optimizer.param_groups[0]["params"][0].device
            scale = self.scaler.to(device).scale_tensor
            self._found = Tensor(0.0, dtype="float32", device=scale.device)
            judged.append(_unscaling(scale, self._found))
        gradients = _gradients_of(parts, self.accumulate, self.precision, scale, judged)
        transform = _chained(self._transforms)

        def update() -> None:
            """What follows once the gradients are known."""
            transform(optimizer)
            optimizer.step()
            if average is not None:
                average.update()

        def training_step(*batch: Tensor) -> tuple[Tensor, Tensor]:
            """The whole step."""
            result = gradients(*batch)
            update()
            return result

        first, second = (training_step, None) if scale is None else (gradients, update)
        if not compiled:
            return first, second
        # Nobody asked for a program by name: where there can be none, the step runs as it is.
        return program.Compiled(first, asked=False), (
            None if second is None else program.Compiled(second, asked=False)
        )


def _nothing(*batch: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("there is no step before the first batch")


def _unscaling(scale: Tensor, found: Tensor) -> GradientTransform:
    return lambda optimizer: unscale(optimizer, scale, found)


def _clipping(max_norm: float) -> GradientTransform:
    return lambda optimizer: clip_gradients(optimizer, max_norm)


def _chained(transforms: Sequence[GradientTransform]) -> GradientTransform:
    """The transforms as one: closures in closures, since a replay checks cells fastest."""
    if not transforms:
        return lambda optimizer: None
    if len(transforms) == 1:
        return transforms[0]
    first, rest = transforms[0], _chained(transforms[1:])

    def both(optimizer: Optimizer) -> None:
        """One after the other."""
        first(optimizer)
        rest(optimizer)

    return both


def _gradients_of(
    parts: Parts,
    accumulate: int,
    precision: str | None,
    scale: Tensor | None,
    transforms: Sequence[GradientTransform],
) -> _Stage:
    """The part of a step that gives loss and output, and leaves gradients in the parameters."""
    # What can change stands in the cells of the function itself: a replay checks them fastest.
    model, optimizer, loss = parts.model, parts.optimizer, parts.loss
    prepare, penalty, transform = parts.prepare, parts.penalty, _chained(transforms)

    def gradients(*batch: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and output of a batch."""
        optimizer.zero_grad()
        losses: list[Tensor] = []
        outputs: list[Tensor] = []
        whole = batch[-1]
        bounds = _bounds(len(whole), accumulate)
        by_count = len(bounds) == 1 or _is_mean_over_examples(loss)
        for begin, end in bounds:
            *inputs, target = batch if len(bounds) == 1 else [x[begin:end] for x in batch]
            with contextlib.nullcontext() if precision is None else autocast(precision):
                output = model(*prepared(prepare, inputs))
                if by_count:
                    value = loss(output, target)
                else:
                    value = loss(_filled(output, begin, end, len(whole)), whole)
            if by_count and len(bounds) > 1:
                value = value * (len(target) / len(whole))
            total = value if penalty is None or losses else value + penalty()
            (total if scale is None else total * scale).backward()
            losses.append(value.detach())
            outputs.append(output.detach())
        transform(optimizer)
        if len(bounds) == 1:
            return losses[0], outputs[0]
        together = concatenate(outputs, axis=0)
        if by_count:
            return sum(losses[1:], losses[0]), together
        with no_grad(), contextlib.nullcontext() if precision is None else autocast(precision):
            return loss(together, whole), together

    return gradients


def _bounds(n: int, count: int) -> list[tuple[int, int]]:
    """Where ``count`` parts of nearly equal size begin and end; fewer if ``n`` is less."""
    count = max(min(count, n), 1)
    return list(itertools.pairwise([n * i // count for i in range(count + 1)]))


#: Losses whose mean over a batch is that of the means over its parts by their numbers of examples.
_MEANS = frozenset(
    {
        functional.cross_entropy,
        functional.nll_loss,
        functional.mse_loss,
        functional.l1_loss,
        functional.binary_cross_entropy_with_logits,
    }
)


def _is_mean_over_examples(loss: Callable[..., Any]) -> bool:
    if isinstance(loss, nn.CrossEntropyLoss):
        return loss.reduction == "mean" and loss.weight is None and loss.ignore_index is None
    if isinstance(loss, nn.MSELoss | nn.L1Loss | nn.NLLLoss | nn.BCEWithLogitsLoss):
        return loss.reduction == "mean"
    return isinstance(loss, FunctionType) and loss in _MEANS


def _filled(output: Tensor, begin: int, end: int, n: int) -> Tensor:
    """The output of the examples from ``begin`` to ``end`` of ``n``, with rows for all the others.

    The gradient of a loss of all examples with respect to these rows is what it would be if the
    others were theirs, whatever each example and class counts for: it is divided by the sum of what
    all count for. The rows of the others are copies, so that the loss is defined for them.
    """
    each, rest = divmod(len(output), end - begin)
    if rest:
        raise TensorgradError(
            "Trainer: to accumulate, the output must have as many rows for each example; got "
            f"{len(output)} for {end - begin} examples"
        )
    copies = concatenate([output.detach()] * -(-n // (end - begin)), axis=0)
    parts = [copies[: each * begin], output, copies[: each * (n - end)]]
    return concatenate([part for part in parts if len(part)], axis=0)
