"""``Module.check``: errors of shape found without data, with the nearest fix.

The model is run on zeros. A layer whose input does not fit is noted, with the module that made the
input and what would make them fit; then the run goes on with what the layer would have given, so
that one call finds several mistakes.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorgrad import dtypes
from tensorgrad.autograd.modes import no_grad
from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn.containers import Residual
from tensorgrad.nn.embedding import RBF, Bilinear, Embedding
from tensorgrad.nn.layers import Linear
from tensorgrad.nn.module import Module, evaluating
from tensorgrad.nn.normalization import BatchNorm1d, GroupNorm, LayerNorm, RMSNorm
from tensorgrad.ops.creation import zeros
from tensorgrad.tensor import Tensor

_PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Problem:
    """One mistake.

    path: of the module in which it shows, "" for the model itself. axis: of the module's input
    that does not fit, None where it is not one axis. what: what does not fit. fix: the nearest
    change that would help.
    """

    path: str
    module: str
    axis: int | None
    what: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.path} ({self.module})" if self.path else self.module
        at = "" if self.axis is None else f", axis {self.axis}"
        return f"{place}{at}: {self.what}. Fix: {self.fix}"


class ModelError(ShapeError):
    """What ``Module.check`` found; ``problems`` is the list."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count} in the model\n" + "\n".join(f"- {p}" for p in problems))


@dataclass(frozen=True)
class _Misfit:
    """What a layer says of an input: the axis and the size it has, and what it should be."""

    axis: int | None
    what: str
    own: str  # how the layer would have to be made, "" if it cannot
    wanted: int | None = None  # the size of the axis that the layer wants
    output: tuple[int, ...] | None = None  # what it would have given


def check_shapes(model: Module, inputs: Sequence[Any]) -> Any:
    """The output of ``model`` for zeros in the place of ``inputs``; see ``Module.check``."""
    first = next(model.parameters(), None)
    device = None if first is None else first.device
    dtype = dtypes.get_default_dtype() if first is None else first.dtype
    problems: list[Problem] = []
    made: list[Tensor] = []
    for given in inputs:
        if isinstance(given, Tensor):
            made.append(zeros(given.shape, dtype=given.dtype, device=device))
        else:
            made.append(zeros(tuple(given), dtype=dtype, device=device))
    run = _Run(model, problems)
    try:
        with run.watching(), no_grad():
            output = model(*made)
    except Exception as error:
        problems.append(run.explained(error))
        output = None
    if problems:
        raise ModelError(problems)
    return output


class _Run:
    """One run of a model: who made which tensor, and what did not fit."""

    def __init__(self, model: Module, problems: list[Problem]) -> None:
        self.model = model
        self.problems = problems
        self.paths = {id(m): path for path, m in model.named_modules()}
        self.modules = dict(model.named_modules())
        self.makers: dict[int, str] = {}  # id of a tensor's array -> path of the module
        self.sources: dict[int, int] = {}  # id of its array -> that of what it was made from
        self.kept: list[Any] = []  # so that no id is used twice
        self.depth: list[str] = []  # paths of the modules that are running

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every module of the model tells what it does."""
        parts = list(self.model.modules())
        with evaluating(self.model):
            try:
                for part in parts:
                    vars(part)["forward"] = self._observed(part)
                yield
            finally:
                for part in parts:
                    vars(part).pop("forward", None)

    def _observed(self, part: Module) -> Callable[..., Any]:
        forward = part.forward
        path = self.paths[id(part)]

        def call(*args: Any, **kwargs: Any) -> Any:
            misfit = _misfit(part, args)
            if misfit is not None:
                self.problems.append(self._problem(path, part, args, misfit))
                if misfit.output is None:
                    raise _StopError
                output = zeros(misfit.output, dtype=_dtype_of(part))
            else:
                self.depth.append(path)
                output = forward(*args, **kwargs)
                self.depth.pop()
            for y in output if isinstance(output, tuple | list) else (output,):
                if isinstance(y, Tensor):
                    # The innermost module that gave it; containers hand on what others made.
                    self.makers.setdefault(id(y.data), path)
                    self.kept.append(y.data)
                    if args and isinstance(args[0], Tensor) and args[0].data is not y.data:
                        self.sources.setdefault(id(y.data), id(args[0].data))
                        self.kept.append(args[0].data)
            return output

        return call

    def _problem(self, path: str, part: Module, args: Any, misfit: _Misfit) -> Problem:
        fixes = []
        x = args[0] if args else None
        if isinstance(x, Tensor) and misfit.wanted is not None and misfit.axis is not None:
            fixes += _rearrangements(x.shape, misfit.axis % len(x.shape) if x.shape else 0,
                                     misfit.wanted)  # fmt: skip
        if misfit.own:
            fixes.append(misfit.own)
        if isinstance(x, Tensor) and misfit.wanted is not None:
            # Back through activations and norms, which have no size of their own to choose.
            array: int | None = id(x.data)
            while array is not None and (maker := self.makers.get(array)) is not None:
                option = _output_option(self.modules[maker], misfit.wanted)
                if option:
                    fixes.append(f"{option} in {maker}, from which its input comes")
                    break
                array = self.sources.get(array)
        return Problem(
            path, type(part).__name__, misfit.axis, misfit.what,
            " or ".join(fixes) or "give it an input of that shape",
        )  # fmt: skip

    def explained(self, error: BaseException) -> Problem:
        """An error that is no misfit of a known layer."""
        if isinstance(error, _StopError):
            return self.problems.pop()
        path = self.depth[-1] if self.depth else ""
        part = self.modules[path]
        line = _users_line(error)
        at = f" (at {line})" if line else ""
        if isinstance(error, ShapeError):
            return Problem(path, type(part).__name__, None, error.message + at, _hint(error))
        if isinstance(error, TypeError) and "argument" in str(error):
            return Problem(
                path, type(part).__name__, None, f"{error}{at}",
                "give check() a shape for each argument of forward()",
            )  # fmt: skip
        if isinstance(
            error, TensorgradError | ValueError | IndexError | TypeError | AttributeError
        ):
            kind = type(error).__name__
            return Problem(path, type(part).__name__, None, f"{kind}: {error}{at}", _hint(error))
        raise error


class _StopError(Exception):
    """A layer does not fit, and nobody can say what it would have given."""


def _hint(error: BaseException) -> str:
    text = str(error)
    if ".mT" in text:  # the message of a product says which factor
        factor = "first" if "first factor with .mT" in text else "second"
        return f"transpose the {factor} factor with .mT, or make the two sizes equal"
    if "reshape" in text or "elements" in text:
        return "let one axis be -1, or change the sizes so that their product is that of the input"
    if "broadcast" in text:
        return "make the sizes equal, or one of them 1 (x[:, None], keepdims=True)"
    if "concat" in text or "stack" in text:
        return "make all other axes equal, or join along another axis"
    if isinstance(error, AttributeError):
        return "assign the module in __init__"
    return "correct the shapes in forward()"


def _users_line(error: BaseException) -> str:
    """The last line outside this package that led to the error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_PACKAGE):
            return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return ""


def _dtype_of(part: Module) -> Any:
    first = next(part.parameters(), None)
    return None if first is None else first.dtype


def _rearrangements(shape: tuple[int, ...], axis: int, wanted: int) -> list[str]:
    """What could be done to an input of ``shape`` so that its axis has size ``wanted``."""
    found = []
    last = len(shape) - 1
    for first in range(1, last):
        if math.prod(shape[first:]) == wanted and axis == last:
            how = "nn.Flatten()" if first == 1 else f"nn.Flatten({first})"
            found.append(f"{how} before it: {shape[first:]} are {wanted} numbers")
            break
    others = [k for k, n in enumerate(shape) if n == wanted and k != axis and k > 0]
    if others:
        found.append(
            f"swap axes {others[0]} and {axis} of the input, x.swapaxes({others[0]}, {axis})"
        )
    elif shape and shape[0] == wanted and axis > 0 and len(shape) == 2:
        found.append("transpose the input, x.T: its axis 0 has that size")
    return found


def _output_option(maker: Module, wanted: int) -> str:
    """How the module that made an input would have to be made to give ``wanted`` features."""
    if isinstance(maker, Linear | Bilinear):
        return f"out_features={wanted}"
    if isinstance(maker, Embedding):
        return f"embedding_dim={wanted}"
    if isinstance(maker, RBF):
        return f"num_centers={wanted}"
    return ""


def _last_axis(x: Tensor, name: str, size: int, outputs: int) -> _Misfit | None:
    """For a layer that wants ``size`` features in the last axis."""
    if x.shape and x.shape[-1] == size:
        return None
    if not x.shape:
        return _Misfit(None, "the input has no axis", "", size)
    return _Misfit(
        len(x.shape) - 1,
        f"the input has shape {x.shape}; its last axis must have size {size}",
        f"{name}={x.shape[-1]} here",
        size,
        (*x.shape[:-1], outputs),
    )


def _misfit(part: Module, args: Sequence[Any]) -> _Misfit | None:
    """What does not fit of the arguments of a layer of the library; None if all does."""
    x = args[0] if args else None
    if not isinstance(x, Tensor):
        return None
    if isinstance(part, Linear):
        return _last_axis(x, "in_features", part.in_features, part.out_features)
    if isinstance(part, RBF):
        return _last_axis(x, "in_features", part.in_features, len(part.beta))
    if isinstance(part, LayerNorm | RMSNorm):
        return _normalized(x, part.normalized_shape)
    if isinstance(part, GroupNorm):
        return _channels(x, "num_channels", part.num_channels, range(2, 65), "(N, {}, ...)")
    if isinstance(part, BatchNorm1d):
        return _channels(x, "num_features", part.num_features, (2, 3), "(N, {}) or (N, {}, L)")
    if isinstance(part, Embedding) and x.dtype not in INTEGERS:
        return _Misfit(
            None, f"the input must hold integers, not {x.dtype}",
            "check with an integer tensor, as model.check(tg.zeros((8, 5), dtype=tg.int64)), and "
            "convert the input with .astype(tg.int64)",
            None, (*x.shape, part.weight.shape[1]),
        )  # fmt: skip
    if isinstance(part, Bilinear) and len(args) == 2 and isinstance(args[1], Tensor):
        out, in1, in2 = part.weight.shape
        for k, (y, size) in enumerate(zip(args, (in1, in2)), 1):
            found = _last_axis(y, f"in{k}_features", size, out)
            if found is not None:
                return found
    if isinstance(part, Residual):
        return None  # its own forward says it
    return None


def _normalized(x: Tensor, sizes: tuple[int, ...]) -> _Misfit | None:
    n = len(sizes)
    if x.shape[-n:] == sizes:
        return None
    if len(x.shape) < n:
        return _Misfit(None, f"the input has shape {x.shape}, and {n} axes are to be normalized",
                       "normalized_shape of fewer axes here")  # fmt: skip
    axis = next(k for k in range(1, n + 1) if x.shape[-k] != sizes[-k])
    wanted = sizes[-axis]
    own = x.shape[-n:] if n > 1 else x.shape[-1]
    return _Misfit(
        len(x.shape) - axis,
        f"the input has shape {x.shape}; its last axes must be {sizes}",
        f"normalized_shape={own} here", wanted, x.shape,
    )  # fmt: skip


def _channels(
    x: Tensor, name: str, size: int, ranks: Sequence[int] | range, shape: str
) -> _Misfit | None:
    """For a layer that wants ``size`` channels in axis 1."""
    text = shape.replace("{}", str(size))
    if len(x.shape) not in ranks:
        fix = "nn.Flatten() before it" if len(x.shape) > max(ranks) else ""
        return _Misfit(None, f"the input has shape {x.shape}; it must have shape {text}", fix,
                       None, x.shape)  # fmt: skip
    if x.shape[1] == size:
        return None
    return _Misfit(
        1, f"the input has shape {x.shape}; it must have shape {text}",
        f"{name}={x.shape[1]} here", size, x.shape,
    )  # fmt: skip
