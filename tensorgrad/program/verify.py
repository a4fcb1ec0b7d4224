"""Whether a replay did what the function did, and how much of a difference is rounding.

Two programs that compute the same in another order differ in the last bits. What becomes of them
depends on the computation: Adam divides a gradient by about its own magnitude, so that a parameter
whose gradient is nothing but rounding (a bias before a batch normalization) moves by whole steps.
No bound fits all, so the program itself is asked: it is run on copies, once as it is and then with
every input and the result of every instruction moved by their last bits, and a difference is
excused if it is of that order. What cancels within one operation (the gradient of a cross-entropy
is p - 1, the rounding of a probability near 1) shows otherwise: the program is run in float64, and
a difference is excused that is of the order of what is between that and the program call by call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.program.executors.numpy import NumpyExecutor
from tensorgrad.program.ir import Program, Value, is_writeable
from tensorgrad.sparse import in_rows
from tensorgrad.tensor import Tensor
from tensorgrad.versions import increment_versions

# How much larger than the answer to a moved last bit a difference may be. Sums round once for each
# of their terms, which one bit at the inputs does not cover.
_EXCUSED = 16.0
# How often last bits are moved; and how often if that does not excuse a difference, for a choice
# (of the larger of two nearly equal numbers, say) shows in few of the trials.
_TRIALS, _MORE_TRIALS = 2, 8


class Snapshot(dict[str, Any]):
    """Copies of what a program can change, and the very tensors that were the gradients."""

    gradients: Sequence[Tensor | None] = ()


class State:
    """Everything a program can change outside itself, by name.

    leaves: those whose gradients it changes. generators: those it draws from. tensors: its
        arguments.
    """

    def __init__(
        self,
        program: Program,
        leaves: Sequence[Any],
        generators: Sequence[Any],
        tensors: Sequence[Tensor],
    ) -> None:
        self.program = program
        self.leaves = leaves
        self.generators = generators
        self.tensors = tensors
        self.arrays = {
            f"the {v.role} {v.label} {v!r} of shape {v.shape}": (v, self._fetch(v))
            for v in program.touched
        }

    def _fetch(self, v: Value) -> Callable[[], Any]:
        return v.fetch if v.fetch is not None else lambda: self.tensors[int(v.label)].data

    def copy(self) -> Snapshot:
        """A copy of all of it."""
        found = Snapshot(
            (name, backend.copied(fetch())) for name, (_, fetch) in self.arrays.items()
        )
        found.gradients = [leaf.grad for leaf in self.leaves]
        for k, leaf in enumerate(self.leaves):
            grad = leaf.grad
            found[f"gradient {k}"] = None if grad is None else _copied(grad)
        for k, generator in enumerate(self.generators):
            found[f"the state of generator {k}"] = generator.state()
        return found

    def restore(self, saved: Snapshot) -> None:
        """Put it back: the numbers, and as gradients the tensors that they were, which may be one
        and the same, or lie in the memory of others."""
        for name, (_, fetch) in self.arrays.items():
            array = fetch()
            _put_back(array, saved[name])
            increment_versions([array])
        for k, (leaf, tensor) in enumerate(zip(self.leaves, saved.gradients, strict=True)):
            leaf.grad = tensor
            if tensor is not None and not in_rows(tensor):
                _put_back(tensor.data, saved[f"gradient {k}"])
        self._rewind(saved)

    def _rewind(self, saved: dict[str, Any]) -> None:
        for k, generator in enumerate(self.generators):
            generator.set_state(saved[f"the state of generator {k}"])

    def answers(self, before: dict[str, Any], seeds: Iterable[int]) -> list[dict[str, Any]]:
        """What the program makes of copies of its inputs: in float64; as they are; and, for each of
        the seeds, where all last bits are moved.

        before: the state that it starts from; it is the present one again afterwards.
        """
        exact = self._made(before, _widened, _widened)
        return [exact, self._made(before, backend.copied, None), *self.trials(before, seeds)]

    def trials(self, before: dict[str, Any], seeds: Iterable[int]) -> list[dict[str, Any]]:
        """What it makes of them where all last bits are moved."""
        moves = [functools.partial(_moved, draw=np.random.default_rng(seed)) for seed in seeds]
        return [self._made(before, move, move) for move in moves]

    def _made(
        self,
        before: dict[str, Any],
        change: Callable[[Any], Any],
        moved: Callable[[Any], Any] | None,
    ) -> dict[str, Any]:
        """What the program makes of copies that ``change`` makes of its inputs."""
        now = {f"the state of generator {k}": g.state() for k, g in enumerate(self.generators)}
        inputs: dict[Value, Any] = {}
        for v in self.program.values():
            if v.role in ("external", "argument"):
                inputs[v] = self._fetch(v)()
        inputs.update({v: before[name] for name, (v, _) in self.arrays.items()})
        changed = {v: change(array) for v, array in inputs.items()}
        self._rewind(before)
        try:
            calls = NumpyExecutor(self.program, instead=changed, moved=moved)
            results, gradients = calls.run([changed[v] for v in self.program.arguments])
        finally:
            self._rewind(now)
        seen = {f"result {k}": array for k, array in enumerate(results)}
        for k in range(len(self.leaves)):
            g = self.program.gradient(k, gradients)
            seen[f"gradient {k}"] = g.data if isinstance(g, Tensor) else g
        seen.update({name: changed[v] for name, (v, _) in self.arrays.items()})
        return seen


def _copied(gradient: Tensor) -> Any:
    """The numbers of a gradient in memory of their own; one that is kept as rows stays so."""
    if in_rows(gradient):
        return gradient.copied(share=True).data
    return backend.copied(gradient.data)


def _widened(array: Any) -> Any:
    """A copy in float64, if it is of floats."""
    return array.astype(np.float64) if array.dtype in dtypes.FLOATS else backend.copied(array)


def _put_back(array: Any, saved: Any) -> None:
    if is_writeable(array):  # else it shows memory that is written through another one
        place = backend.of(array)
        with place.at(place.device_of(array)):
            array[...] = saved


def _moved(array: Any, draw: np.random.Generator) -> Any:
    """A copy, each float of which ``draw`` moves by about its last bit, up or down."""
    copy = backend.copied(array)
    if array.dtype not in dtypes.FLOATS or not array.size:
        return copy
    place = backend.of(array)
    bit = float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
    with place.at(place.device_of(array)):
        signs = draw.choice([1.0 - bit, 1.0 + bit], size=array.shape).astype(array.dtype)
        copy *= place.xp.asarray(signs)
    return copy


def differs(state: State, before: dict[str, Any], pairs: Sequence[tuple[str, Any, Any]]) -> str:
    """How a replay differs from what the function did, beyond rounding; empty if it does not.

    pairs: names as ``State`` has them, what the replay left there, and what the function did.
    """
    answers: list[dict[str, Any]] = []
    for name, a, b in pairs:
        problem = difference(a, b)
        if not problem:
            continue
        if state.program.aliased:  # it runs on the very memory of the arrays, not on copies
            return f"{name} {problem}"
        answers = answers or state.answers(before, range(_TRIALS))
        if name not in answers[1]:
            return f"{name} {problem}"
        if not _is_excused(a, b, name, answers):
            if len(answers) < _MORE_TRIALS:
                answers += state.trials(before, range(_TRIALS, _MORE_TRIALS))
            if not _is_excused(a, b, name, answers):
                return f"{name} {problem}"
    return ""


def difference(a: Any, b: Any) -> str:
    """How two arrays differ beyond what rounding usually does; empty if they do not."""
    if a is None or b is None or isinstance(a, tuple):
        return "" if (a is None) == (b is None) and (a is None or a == b) else f"is {a}, not {b}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"has shape {a.shape} and dtype {a.dtype}, not {b.shape} and {b.dtype}"
    x, y = (backend.of(v).to_host(v) for v in (a, b))
    if x.dtype not in dtypes.FLOATS:
        return "" if np.array_equal(x, y) else "differs"
    x, y = x.astype(np.float64), y.astype(np.float64)
    wide = 1e-9 if a.dtype == np.float64 else 1e-4 if a.dtype == np.float32 else 3e-2
    scale = float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0))
    if np.allclose(x, y, rtol=wide * 10, atol=wide * max(scale, 1e-6), equal_nan=True):
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(x - y)
    most = float(np.max(off[np.isfinite(off)], initial=0.0))
    odd = int((np.isfinite(x) != np.isfinite(y)).sum())
    more = f", and in whether {odd} numbers are finite" if odd else ""
    return f"differs by up to {most:.3g}, its largest magnitude being {scale:.3g}{more}"


def _apart(a: Any, b: Any) -> Any:
    """How far apart two arrays are, in float64 on the host."""
    x, y = (np.asarray(backend.of(v).to_host(v), np.float64) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return np.where((x == y) | ((x != x) & (y != y)), 0.0, np.abs(x - y))


def _is_excused(a: Any, b: Any, name: str, answers: Sequence[dict[str, Any]]) -> bool:
    if a is None or b is None or isinstance(a, tuple) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    off = _apart(a, b)
    exact, base = answers[0].get(name), answers[1][name]
    if base is None:
        return False
    moved = [_apart(answer[name], base) for answer in answers[2:]]
    if b.dtype != np.float64 and exact is not None:
        moved.append(_apart(base, exact))
    odd = ~np.isfinite(off)  # one is finite where the other is not, or they are other infinities
    if odd.any():
        # Where numbers overflow, the order of operations decides which: the answers show it.
        near = np.zeros(off.shape, bool)
        for m in moved:
            near |= ~np.isfinite(m)
        for answer in answers[1:]:
            near |= ~np.isfinite(np.asarray(backend.of(base).to_host(answer[name]), np.float64))
        if not near[odd].all():
            return False
    off = off[~odd]
    parts = [m[np.isfinite(m)] for m in moved]
    most = max(float(np.max(m, initial=0.0)) for m in parts)
    mean = max(float(m.mean()) if m.size else 0.0 for m in parts)
    if not off.size:
        return True
    return bool(off.max() <= _EXCUSED * most and off.mean() <= _EXCUSED * mean)
