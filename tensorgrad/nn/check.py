"""``Module.check``: errors of shape found without data, with the nearest fix.

The model is run on zeros. A layer whose input does not fit is noted, with the module that made the
input and what would make them fit; then the run goes on with what the layer would have given, so
that one call finds several mistakes.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorgrad import dtypes
from tensorgrad.autograd.modes import no_grad
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn.evaluating import observing
from tensorgrad.nn.fit import Misfit
from tensorgrad.ops.creation import zeros
from tensorgrad.tensor import Tensor

if TYPE_CHECKING:
    from tensorgrad.nn.module import Module

__all__ = ["ModelError", "Problem"]

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
        with observing(model, run.observed), no_grad():
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
        self.problems = problems
        self.paths = {id(m): path for path, m in model.named_modules()}
        self.modules = dict(model.named_modules())
        self.makers: dict[int, str] = {}  # id of a tensor's array -> path of the module
        self.sources: dict[int, int] = {}  # id of its array -> that of what it was made from
        self.kept: list[Any] = []  # so that no id is used twice
        self.depth: list[str] = []  # paths of the modules that are running

    def observed(self, part: Module) -> Callable[..., Any]:
        """``forward`` of a part, which tells what it does."""
        forward = part.forward
        path = self.paths[id(part)]

        def call(*args: Any, **kwargs: Any) -> Any:
            """Note what does not fit, and who made what; else ``forward``."""
            misfit = part._misfit(*args) if args and isinstance(args[0], Tensor) else None
            if misfit is not None:
                self.problems.append(self._problem(path, part, args, misfit))
                if misfit.output is None:
                    raise _StopError
                output = _zeros(misfit.output, _dtype_of(part))
            else:
                self.depth.append(path)
                output = forward(*args, **kwargs)
                self.depth.pop()
            for y in _flat(output):
                if isinstance(y, Tensor):
                    # The innermost module that gave it; containers hand on what others made.
                    self.makers.setdefault(id(y.data), path)
                    self.kept.append(y.data)
                    if args and isinstance(args[0], Tensor) and args[0].data is not y.data:
                        self.sources.setdefault(id(y.data), id(args[0].data))
                        self.kept.append(args[0].data)
            return output

        return call

    def _problem(self, path: str, part: Module, args: Any, misfit: Misfit) -> Problem:
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
                argument = self.modules[maker]._output_argument
                if argument:
                    if getattr(self.modules[maker], argument, None) != _size(x, misfit.axis):
                        break  # what came after it made another size of it
                    fixes.append(
                        f"{argument}={misfit.wanted} in {maker}, from which its input comes"
                    )
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


def _zeros(shape: tuple[int, ...] | list[Any], dtype: Any) -> Any:
    """A tensor of zeros; of a list of shapes, a tuple of them."""
    if isinstance(shape, list):
        return tuple(_zeros(one, dtype) for one in shape)
    return zeros(shape, dtype=dtype)


def _flat(output: Any) -> list[Any]:
    """What lies in tuples and lists, however deep."""
    if isinstance(output, tuple | list):
        return [y for part in output for y in _flat(part)]
    return [output]


def _hint(error: BaseException) -> str:
    text = str(error)
    if ".mT" in text:  # the message of a product says which factor
        factor = "first" if "first factor with .mT" in text else "second"
        return f"transpose the {factor} factor with .mT, or make the two sizes equal"
    if "kernel" in text:
        return "a larger input, padding, a smaller kernel_size, or fewer strides or pools before"
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


def _size(x: Tensor, axis: int | None) -> int | None:
    return None if axis is None or not x.shape else x.shape[axis]


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
