"""``tensorgrad.compile``: functions whose later calls replay a program."""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend import is_array
from tensorgrad.errors import CompileError
from tensorgrad.program import native
from tensorgrad.program.calls import Calls
from tensorgrad.program.capture import Recorder, capture
from tensorgrad.program.comparison import State, differs
from tensorgrad.program.entry import quick_entry
from tensorgrad.program.guards import Guards
from tensorgrad.program.passes import simplified
from tensorgrad.program.program import Program
from tensorgrad.tape import current_mode, wrap
from tensorgrad.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

EXECUTORS = ("auto", "native", "numpy")


# After so many captures for calls that look alike a function is called as it is.
# So many runs pay for making the quick way in.
_WORTH_IT = 16
_PATIENCE = 12


class _Leaf(NamedTuple):
    """The place of a tensor in a tree of arguments or results."""

    number: int


class Entry:
    """One captured program with what it needs to be replayed."""

    def __init__(
        self,
        program: Program,
        executor: Any,
        guards: Guards,
        recorder: Recorder,
        tree: Any,
        device: str,
    ) -> None:
        self.program = program
        self._device = None if device == "cpu" else device
        self.executor = executor
        self.guards = guards
        self.words = tuple(recorder.words.items())
        self.assigned = tuple(recorder.assigned)
        self.tree = tree
        self.leaves = [leaf for leaf, _ in program.gradients]
        self.gradients: list[Tensor | None] = [None] * len(self.leaves)
        self.replays = 0
        self.seconds = 0.0
        self.quick: Any = None
        self.verified = False
        self._made_quick = 0
        self.single = type(tree) is _Leaf
        self._expected: list[tuple[Any, Any, Any, Any]] | None = None
        self._mode = current_mode()
        self._default = dtypes.get_default_dtype()

    def make_quick(self, tensors: Sequence[Tensor]) -> None:
        """Make the quick way in, where there is one."""
        # A program whose gradients are always kept by somebody would be at it in every step.
        if self.assigned:
            return
        if self._expected is not None and self._made_quick < 8 and not self.verified:
            self._made_quick += 1
            gradients = list(zip(self.leaves, self.gradients, strict=True))
            self.quick = quick_entry(
                self.executor, self.guards, tensors, gradients, self.words, self._mode
            )

    def expect(self, tensors: Sequence[Tensor]) -> None:
        """Note what the arguments are, if all of them are tensors: see ``takes``."""
        self._expected = [
            (_place(t.data), t.data.shape, t.data.dtype, type(t.node)) for t in tensors
        ]

    def takes(self, args: Sequence[Any], mode: Any) -> bool:
        """Whether the program is for these arguments: the quick way, where all are tensors."""
        expected = self._expected
        if expected is None or len(args) != len(expected) or mode is not self._mode:
            return False
        for t, (place, shape, dtype, kind) in zip(args, expected):
            if type(t) is not Tensor or type(t.node) is not kind:
                return False
            a = t.data
            if a.shape != shape or a.dtype is not dtype or _place(a) != place:
                return False
        return dtypes.get_default_dtype() is self._default

    def replay(self, arrays: Sequence[Any]) -> Any:
        """Run the program and put everything where eager mode would have left it."""
        # The quick way refers to the gradients, and to the memory where they were: it is made anew.
        if self.quick is not None and self.quick.count > _WORTH_IT:
            self._made_quick = 0  # it paid: what ended it, as a validation in between, is rare
        self.quick = None
        held = self.gradients
        for k, leaf in enumerate(self.leaves):
            # The array is referred to by the executor, twice, and by the tensor; the tensor by this
            # list and by the leaf. Whoever else refers to one keeps it: then the next one is new.
            tensor = held[k]
            if tensor is not None and (
                getrefcount(tensor) > (4 if leaf.grad is tensor else 3)
                or getrefcount(tensor.data) > self.executor.references
            ):
                held[k] = None
                self.executor.renew(k)
        if self._device is None:
            results, gradients = self.executor.run(arrays)
        else:
            with backend.cuda_backend().at(self._device):
                results, gradients = self.executor.run(arrays)
        for k, (leaf, array) in enumerate(zip(self.leaves, gradients)):
            tensor = held[k]
            if array is None:
                leaf.grad = None
            elif tensor is not None and tensor.data is array:
                leaf.grad = tensor
            else:
                leaf.grad = held[k] = wrap(array, None)
        for leaf, tensor in self.assigned:
            leaf.grad = tensor
        for generator, words in self.words:
            key, position = generator.state()
            generator.set_state((key, position + words))
        self.replays += 1
        return _unflatten(self.tree, results)

    def state(self, tensors: Sequence[Tensor]) -> State:
        """What a replay with these arguments changes."""
        return State(self.program, self.leaves, [g for g, _ in self.words], tensors)

    def differs(
        self,
        replayed: Any,
        results: Sequence[Any],
        after: dict[str, Any],
        before: dict[str, Any],
        state: State,
    ) -> str:
        """How the replay just made differs from what the function did; empty if it does not.

        before, after: the state that the function found, and what it made of it.
        """
        seen: list[Tensor] = []
        _flatten(replayed, seen, constants=True)
        now = state.copy()
        pairs = [(f"result {k}", a.data, b) for k, (a, b) in enumerate(zip(seen, results))]
        pairs += [(name, now[name], after[name]) for name in after]
        if self._device is None:
            return differs(state, before, pairs)
        with backend.cuda_backend().at(self._device):
            return differs(state, before, pairs)


class Compiled:
    """A function that captures what it does at its first call and replays it at later ones.

    Made by ``tensorgrad.compile``, which says what holds for it.
    """

    def __init__(
        self, function: Callable[..., Any], executor: str, verify: int, limit: int
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self._executor = executor
        self._verify = verify
        self._limit = limit
        self._entries: OrderedDict[Any, list[Entry]] = OrderedDict()
        self._last_used: Entry | None = None
        self._misses: dict[Any, int] = {}
        self._plain: set[Any] = set()  # signatures of calls that run as they are
        self._lock = threading.RLock()
        #: how often the function was captured
        self.captures = 0

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``function(*args, **kwargs)``, replayed if it was called like this before."""
        mode = current_mode()
        last = self._last_used
        if last is not None and last.quick is not None and not kwargs and self._lock.acquire(False):
            try:
                out = last.quick(*args)
            finally:
                self._lock.release()
            if out is not NotImplemented:
                return out[0] if last.single else _unflatten(last.tree, out)
        if last is not None and not kwargs and last.takes(args, mode):
            with self._lock:
                if last.guards.hold() and not self._is_to_be_verified(last):
                    result = last.replay([t.data for t in args])
                    last.make_quick(args)
                    return result
        if any(o.records for o in mode.observers):
            return self.function(*args, **kwargs)  # part of what is being captured
        tensors: list[Tensor] = []
        if not kwargs and all(type(a) is Tensor for a in args):
            tensors = list(args)
            tree: Any = len(args)
        else:
            tree = _flatten((args, kwargs), tensors)
        key = (
            tree,
            tuple(
                [(t.data.shape, t.data.dtype.num, _place(t.data), type(t.node)) for t in tensors]
            ),
            mode.grad,
            dtypes.get_default_dtype().num,
        )
        if key in self._plain:
            return self.function(*args, **kwargs)
        with self._lock:
            entries = self._entries.get(key)
            if entries is not None and not mode.observers:
                for entry in entries:
                    if entry.guards.hold():
                        self._last_used = entry
                        if self._is_to_be_verified(entry):
                            return self._verified(entry, tensors, args, kwargs)
                        return entry.replay([t.data for t in tensors])
            elif mode.observers:
                return self.function(*args, **kwargs)  # an anomaly check wants to see it all
            self._misses[key] = self._misses.get(key, 0) + 1
            if self._misses[key] > _PATIENCE:
                self._plain.add(key)
                warnings.warn(
                    f"{getattr(self, '__name__', 'a compiled function')} runs as it is from here "
                    f"on: what it depends on was another thing in {_PATIENCE} calls with the same "
                    "arguments, as where a module counts its calls in an attribute",
                    stacklevel=2,
                )
                return self.function(*args, **kwargs)
            return self._capture(key, tensors, args, kwargs)

    def _is_to_be_verified(self, entry: Entry) -> bool:
        every = self._verify
        return every > 0 and entry.replays % every == every - 1

    def _capture(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        guards = Guards(self.function, _objects((args, kwargs)))
        recorder = Recorder(tensors, guards.enter)
        found: list[Tensor] = []
        trees: list[Any] = []

        def tensors_of(result: Any) -> list[Tensor]:
            trees.append(_flatten(result, found, constants=True))
            return found

        program, result = capture(lambda: self.function(*args, **kwargs), recorder, tensors_of)
        start = time.perf_counter()
        arrays = [t.data for t in tensors]
        device = _device_of(program, arrays)
        with backend.backend_for(device).at(device):
            program = simplified(program)
            executor = _executor(self._executor, program)
        guards.complete(recorder)
        entry = Entry(program, executor, guards, recorder, trees[0], device)
        if not kwargs and len(tensors) == len(args):
            entry.expect(tensors)
        # The step that was captured is taken back and replayed, so that every step is made by the
        # same code, whether it is the first one or not, and what it does is seen to be right.
        state = entry.state(tensors)
        wanted = [t.data for t in found], state.copy()
        recorder.undo()
        before = state.copy()
        try:
            result = entry.replay(arrays)
            problem = entry.differs(result, *wanted, before, state)
        except Exception as error:
            if executor.name != "cuda":
                raise
            problem = f"{type(error).__name__}: {error}"
        if problem and executor.name != "numpy":
            recorder.undo()
            entry.executor = Calls(program)
            entry.executor.reason = f"the {executor.name} executor did something else: {problem}"
            result = entry.replay(arrays)
            problem = entry.differs(result, *wanted, before, state)
        if problem:
            raise CompileError(
                f"a replay does not do what the function does: {problem}. Something in it passes "
                "by tensorgrad; compute it outside, or do not compile the function"
            )
        entry.verified = self._verify > 0
        entry.make_quick(tensors)
        self._last_used = entry
        entry.seconds = time.perf_counter() - start
        self.captures += 1
        self._entries.setdefault(key, []).insert(0, entry)
        self._entries.move_to_end(key)
        while sum(map(len, self._entries.values())) > self._limit:
            oldest = next(iter(self._entries))
            self._entries[oldest].pop()
            if not self._entries[oldest]:
                del self._entries[oldest]
        return result

    def _verified(self, entry: Entry, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Replay, run the function on the same state, and compare all that either left behind."""
        state = entry.state(tensors)
        before = state.copy()
        wanted: list[Tensor] = []
        _flatten(self.function(*args, **kwargs), wanted, constants=True)
        after = state.copy()
        state.restore(before)
        result = entry.replay([t.data for t in tensors])
        problem = entry.differs(result, [t.data for t in wanted], after, before, state)
        if problem:
            state.restore(before)
            raise CompileError(
                f"a replay does not do what the function does: {problem}. The function depends on "
                "something that changed and that a program cannot see; pass it as an argument. "
                "Everything was put back to what it was before the call"
            )
        return result

    def program(self) -> Program:
        """The program that was used last. Raises CompileError before the first call."""
        return self._last().program

    def _last(self) -> Entry:
        for entries in reversed(self._entries.values()):
            return entries[0]
        raise CompileError("nothing was captured yet; call the function first")

    def report(self) -> str:
        """What runs where, for the program that was used last."""
        entry = self._last()
        executor = entry.executor
        head = (
            f"executor {executor.name}, {len(entry.program.instructions)} instructions, compiled "
            f"in {entry.seconds:.3f} s, {entry.replays} replays since"
        )
        reason = [executor.reason] if executor.reason else []
        return "\n".join([head, *reason, *executor.lines()])


def _place(array: Any) -> Any:
    """Where an array lies, for the signature of a call."""
    return "cpu" if type(array) is np.ndarray else backend.of(array).device_of(array)


def _device_of(program: Program, arguments: Sequence[Any]) -> str:
    """The GPU that a program runs on, or "cpu"."""
    if program.on_host:
        return "cpu"
    for array in [*arguments, *[v.array for v in program.values()]]:
        if is_array(array) and type(array) is not np.ndarray:
            return backend.of(array).device_of(array)
    return backend.cuda_backend().current_device()


def _executor(wanted: str, program: Program) -> Any:
    """The executor asked for, or the best one for the program."""
    if not program.on_host and wanted != "numpy":
        from tensorgrad.program.cuda import Cuda

        try:
            return Cuda(program)
        except Exception as error:  # NVRTC's and the driver's own besides: calls work anyway
            made = Calls(program)
            made.reason = f"{type(error).__name__}: {error}"
            return made
    if wanted == "numpy" or (wanted == "auto" and native.compiler() is None):
        return Calls(program)
    try:
        return native.Native(program)
    except CompileError as error:
        if wanted == "native" and native.compiler() is None:
            raise
        made = Calls(program)
        made.reason = str(error)
        return made


def _flatten(obj: Any, tensors: list[Tensor], constants: bool = False) -> Any:
    """The structure of nested tuples, lists and dicts, with the tensors taken out.

    constants: other objects are kept as they are; else they have to be hashable.
    """
    if isinstance(obj, Tensor):
        tensors.append(obj)
        return _Leaf(len(tensors) - 1)
    if isinstance(obj, tuple | list):
        parts = tuple([_flatten(x, tensors, constants) for x in obj])
        return (type(obj), parts)
    if isinstance(obj, dict):
        return (dict, tuple([(k, _flatten(v, tensors, constants)) for k, v in obj.items()]))
    if not constants:
        try:
            hash(obj)
        except TypeError:
            kind = "NumPy array" if isinstance(obj, np.ndarray) else type(obj).__name__
            raise CompileError(
                f"a compiled function takes tensors, hashable constants, and tuples, lists and "
                f"dicts of them; got a {kind}. Make a tensor of it, as in tg.Tensor(x)"
            ) from None
    return (None, type(obj), obj)


def _objects(obj: Any) -> list[Any]:
    """What has attributes among arguments: they belong to what has to stay the same."""
    if isinstance(obj, tuple | list):
        return [found for x in obj for found in _objects(x)]
    if isinstance(obj, dict):
        return [found for x in obj.values() for found in _objects(x)]
    return [obj] if hasattr(obj, "__dict__") and not isinstance(obj, Tensor | type) else []


def _unflatten(tree: Any, arrays: Sequence[Any]) -> Any:
    if type(tree) is _Leaf:
        found = arrays[tree.number]
        return found if type(found) is Tensor else wrap(found, None)
    kind = tree[0]
    if kind is None:
        return tree[2]
    if kind is dict:
        return {k: _unflatten(v, arrays) for k, v in tree[1]}
    parts = [_unflatten(t, arrays) for t in tree[1]]
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


@overload
def compile(
    function: Callable[..., Any], *, executor: str = ..., verify: int | bool = ..., limit: int = ...
) -> Compiled: ...


@overload
def compile(
    function: None = None, *, executor: str = ..., verify: int | bool = ..., limit: int = ...
) -> Callable[[Callable[..., Any]], Compiled]: ...


def compile(
    function: Callable[..., Any] | None = None,
    *,
    executor: str = "auto",
    verify: int | bool = False,
    limit: int = 8,
) -> Any:
    """A function that runs as a program: captured at the first call, replayed at later ones.

    The first call with given shapes, dtypes and constants runs as usual and is recorded, the
    gradients and optimizer updates in it included. Later calls replay the record without the
    Python in between. Parameters, optimizer states, ``.grad`` and generators are left as the
    function itself would have left them; what else Python does in it (printing, counting, appending
    to a list) happens only at capture. What it returns has no history.

    On a GPU the program becomes generated kernels and matrix products, which are launched as one
    CUDA graph. (Compiled for five architectures and emulated; not yet run on a GPU.)

    function: any function of tensors, hashable constants, and tuples, lists and dicts of them; a
        module too. Used as a decorator it may be left out.
    executor: "numpy" (call by call), "native" (C, needs a compiler), or "auto" for the best that is
        there. On a GPU the latter two mean the executor for CUDA.
    verify: n compares every n-th replay with the function itself (True: each one).
    limit: how many programs are kept; the oldest goes first.

    Raises CompileError if something in the function cannot be captured, and says where.
    """
    if executor not in EXECUTORS:
        raise ValueError(
            f"compile: executor must be one of {', '.join(EXECUTORS)}; got {executor!r}"
        )
    if limit < 1:
        raise ValueError(f"compile: limit must be at least 1, got {limit}")
    if function is None:
        return functools.partial(compile, executor=executor, verify=verify, limit=limit)
    if not callable(function):
        raise TypeError(f"compile: a function is needed, got {type(function).__name__}")
    return Compiled(function, executor, int(verify), limit)
