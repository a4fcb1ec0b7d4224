"""``tensorgrad.compile``: functions whose later calls replay a program."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import threading
import time
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from sys import getrefcount
from typing import Any, TypeVar, overload

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend import is_array
from tensorgrad.errors import CompileError
from tensorgrad.observers import current_mode
from tensorgrad.ops.precision import autocast_dtype
from tensorgrad.program.aliases import device_of, relations
from tensorgrad.program.bytecode.follower import Follower
from tensorgrad.program.bytecode.watch import hindrance
from tensorgrad.program.capture import Recorder, capture
from tensorgrad.program.effects import Effects, effects_of
from tensorgrad.program.engine import is_engine
from tensorgrad.program.executors import EXECUTORS, REFERENCE, executor_of
from tensorgrad.program.executors.base import Executor
from tensorgrad.program.fast_call import fast_call_of, fast_conditions
from tensorgrad.program.forks import GATE
from tensorgrad.program.guards import Guards
from tensorgrad.program.ir import Program
from tensorgrad.program.outputs import Outputs
from tensorgrad.program.passes import simplified
from tensorgrad.program.rounding import beyond_rounding
from tensorgrad.program.trees import (
    Found,
    TensorLeaf,
    alike,
    constants_of,
    flatten,
    signature,
    unflatten,
)
from tensorgrad.program.verify import RehearsalError, Snapshot, State, rehearse
from tensorgrad.sparse import LazyGradient, in_rows
from tensorgrad.tape import wrap
from tensorgrad.tensor import Tensor
from tensorgrad.turns import All, Several, Turns

F = TypeVar("F", bound=Callable[..., Any])

# So many runs pay for making the fast call.
_WORTH_IT = 16
# After so many captures for calls that look alike a function is called as it is.
_PATIENCE = 12
# Calls that look different are remembered up to this number, for each of the tables of a function.
_REMEMBERED = 64
NO_KEYWORDS: dict[str, Any] = {}


def ambient() -> tuple[Any, ...]:
    """What a function depends on without reading it: the modes and defaults of this moment.

    How exact the products of a GPU are is asked only where one has been used in this process:
    the question would import CuPy, which takes longer than all else in a first call.
    """
    gpu = len(backend.BACKENDS) > 1
    return (
        current_mode().grad,
        dtypes.get_default_dtype(),
        autocast_dtype(),
        backend.default_device(),
        backend.get_float32_matmul_precision() if gpu else "highest",
    )


class StoppedError(Exception):
    """A program failed, as for a label out of range, before it changed anything that is seen."""


class CapturedProgram:
    """One captured program with what it needs to be replayed.

    calls: how many calls it has served, that of the capture included.
    """

    def __init__(
        self,
        program: Program,
        executor: Executor,
        guards: Guards,
        recorder: Recorder,
        outputs: Outputs,
        effects: Effects,
        tree: Any,
        device: str,
        around: tuple[Any, ...],
    ) -> None:
        self.program = program
        self._device = None if device == "cpu" else device
        self.executor = executor
        self.guards = guards
        self.words = tuple(recorder.words.items())
        self.assigned = tuple(recorder.assigned)
        self.outputs = outputs
        self.effects = effects
        self.tree = tree
        #: of what the step hands out and leaves behind
        self.trees = [tree, *effects.trees]
        self.constants = [x for t in self.trees for x in constants_of(t)]
        #: leaves whose gradient is changed; those of arguments are those of the call
        self._leaves = program.leaves
        of_arguments = {leaf: k for k, leaf in guards.argument_leaves.items()}
        self._given = [of_arguments.get(leaf) for leaf in self._leaves]
        #: for each leaf the first one that is left with the same tensor as its gradient
        self._first = _firsts([leaf.grad for leaf in self._leaves])
        #: what a replay takes, for no other thread to change the same gradients meanwhile; None for
        #: all there is
        self.turns = self._own_turns()
        self.gradients: list[Tensor | None] = [None] * len(self._leaves)
        self.calls = 0
        self.seconds = 0.0
        self.fast: Any = None
        #: whether it lets other threads go on meanwhile, and takes turns with them
        self.is_long = False
        self.verified = False
        self._made_quick = 0
        #: the guards in C, where that can be had
        self.conditions: Any = None
        self._made_conditions = 0
        self.single = type(tree) is TensorLeaf and tree.number == 0
        self._expected: list[tuple[Any, Any, Any, Any]] | None = None
        #: of the arguments, where these are tensors and nothing else
        self.shapes: tuple[Any, ...] | None = None
        self._mode = current_mode()
        self._ambient = around

    def _own_turns(self) -> Turns | Several | None:
        """Those that the leaves have already, or one for all of them.

        None if the leaves are those of arguments, which are others in each call. Called while
        nobody else has a turn.
        """
        if any(k is not None for k in self._given):
            return None
        own = [*self._leaves, *(leaf for leaf, _ in self.assigned)]
        found = {leaf.turns for leaf in own if leaf.turns is not None}
        if own and not found:
            found = {Turns()}
        for leaf in own:
            if leaf.turns is None:
                leaf.turns = next(iter(found))
        return next(iter(found)) if len(found) == 1 else Several(found)

    @property
    def replays(self) -> int:
        """How many calls were replayed."""
        return self.calls + (0 if self.fast is None else self.fast.count)

    def is_due(self) -> bool:
        """Whether the next call is to be checked: the 2nd, 4th, 8th, 16th, ... since capture."""
        following = self.replays + 1
        return following & (following - 1) == 0

    def leaves(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The leaves whose gradient a call with these arguments changes."""
        return [
            leaf if k is None else tensors[k].node for leaf, k in zip(self._leaves, self._given)
        ]

    def make_quick(self, tensors: Sequence[Tensor]) -> None:
        """Make the fast call, where there is one."""
        # A program whose gradients are always kept by somebody would be at it in every step.
        if self._made_quick >= 8 or self.assigned or self.effects or self.verified:
            return
        if not self.outputs.plain:
            return
        if any(k is not None for k in self._given) or self._ambient[2] is not None:
            return
        if any(first != k for k, first in enumerate(self._first)):
            return
        limit = (1 << self.calls.bit_length()) - 1 - self.calls  # until the next check
        if self._expected is not None and limit > 0:
            self._made_quick += 1
            gradients = list(zip(self._leaves, self.gradients, strict=True))
            self.fast = fast_call_of(
                self.executor, self.guards, tensors, gradients, self.words, self._mode, limit
            )
            self.is_long = self.fast is not None and bool(self.fast.is_long)

    def expect(self, tensors: Sequence[Tensor]) -> None:
        """Note what the arguments are, if all of them are tensors: see ``takes``."""
        if any(type(t) is not Tensor for t in tensors):
            return
        self._expected = [
            (device_of(t.data), t.data.shape, t.data.dtype, type(t.node)) for t in tensors
        ]
        self.shapes = tuple([t.data.shape for t in tensors])

    def is_for(self, args: Sequence[Any], mode: Any) -> bool:
        """Whether a replay with these arguments is right; the fast path, where all are tensors."""
        quick = self.conditions
        on_host = self._device is None
        if quick is not None and on_host and quick.hold(*args):
            return self.effects.ready() and self.outputs.hold(args)
        if not self.takes(args, mode):
            return False
        # C looks at arrays of the host; of those of a GPU it knows which they were.
        if quick is not None and not on_host and quick.hold() and self.guards.apart(args):
            return self.effects.ready() and self.outputs.hold(args)
        if not self.holds(args):
            return False
        if quick is not None and quick.count > _WORTH_IT:
            self._made_conditions = 0
        if self._made_conditions < 8 and self._ambient[2] is None:
            self._made_conditions += 1
            looked_at = args if on_host else ()
            self.conditions = fast_conditions(self.guards, looked_at, self._mode)
        return True

    def takes(self, args: Sequence[Any], mode: Any) -> bool:
        """Whether the program is for these arguments: the fast path, where all are tensors.

        Whether they share memory with each other is left to ``guards``, which holds for a program
        that was captured with arguments that did not.
        """
        expected = self._expected
        if expected is None or len(args) != len(expected) or mode is not self._mode:
            return False
        for t, (place, shape, dtype, kind) in zip(args, expected):
            if type(t) is not Tensor or type(t.node) is not kind:
                return False
            a = t.data
            if a.shape != shape or a.dtype is not dtype or device_of(a) != place:
                return False
        assert self.guards.sharing is not None
        if self.guards.sharing.among != (
            relations([t.data for t in args]) if len(args) > 1 else ()
        ):
            return False
        return self._ambient == ambient()

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a replay with these arguments is right."""
        if not self.guards.hold(tensors):
            return False
        if not self.effects.ready() or not self.outputs.hold(tensors):
            self.guards.broken = "the kind of a counter, or how an argument lies in memory"
            return False
        return True

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the program; what it hands out. Memory, gradients and generators are left as in eager
        mode; what the step does in Python besides is left to ``effects``.

        Raises StoppedError where it fails; then nothing has changed.
        """
        self._end_fast()
        held = self.gradients
        leaves = self.leaves(tensors)
        self._renew_kept(leaves)
        arrays = [t.data for t in tensors]
        try:
            with self._there():
                results, gradients = self.executor.run(arrays)
        except Exception as error:
            if not self.program.on_host:
                raise
            raise StoppedError from error
        lays = self.outputs.lays_gradients
        for k, (leaf, array) in enumerate(zip(leaves, gradients)):
            if self._first[k] != k:
                leaf.grad = leaves[self._first[k]].grad
                continue
            tensor = held[k]
            if self._leaves[k] in self.program.rows:
                leaf.grad = held[k] = self._as_rows(k, tensor, gradients)
                continue
            if lays:
                array = self.outputs.laid(self._leaves[k], array)
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
        self.calls += 1
        return self.outputs.make(results, tensors)

    def _numbers(self, kept: Sequence[int]) -> list[int]:
        """Where the numbers of rows are among the gradients, of these that are kept as rows."""
        program = self.program
        leaves = [self._leaves[k] for k in kept]
        return [program.number_of(leaf) for leaf in leaves if leaf in program.rows]

    def _as_rows(self, k: int, held: Tensor | None, arrays: Sequence[Any]) -> Tensor:
        """Gradient ``k``: the tensor that is there, where it shows these arrays, or a new one."""
        if isinstance(held, LazyGradient):
            numbers = self.program.number_of(self._leaves[k])
            if held.shows(arrays[numbers], arrays[k]):
                return held
        made: Tensor = self.program.gradient(k, arrays)
        return made

    def _end_fast(self) -> None:
        """Call the program from Python again."""
        if self.fast is not None:
            self.calls += self.fast.count
            # It paid: what ended it, as a validation in between, is rare.
            if self.fast.count > _WORTH_IT:
                self._made_quick = 0
            # The fast call refers to the gradients, and to the memory where they were.
            self.fast = None

    def _renew_kept(self, leaves: Sequence[Any]) -> None:
        """Leave the gradients that somebody keeps where they are: the next ones lie elsewhere."""
        held = self.gradients
        # All that somebody keeps is found before any of it is renewed: renewing makes new arrays
        # for all gradients, and would drop the very references that are counted here.
        kept = []
        for k, leaf in enumerate(leaves):
            # The array is referred to by the executor, twice, and by the tensor; the tensor by this
            # list and by the leaf. Whoever else refers to one keeps it: then the next one is new.
            tensor = held[k]
            if tensor is not None and (
                getrefcount(tensor) > (4 if leaf.grad is tensor else 3)
                or getrefcount(_memory_of(tensor)) > self.executor.references
            ):
                kept.append(k)
        tensor = None
        for k in kept:
            held[k] = None
        if kept:
            with self._there():
                self.executor.renew(*kept, *self._numbers(kept))

    def replay(self, tensors: Sequence[Tensor], args: Any, kwargs: Any = NO_KEYWORDS) -> Any:
        """Run the program and leave everything as the function would have left it."""
        made = self.run(tensors)
        if not self.effects:
            return unflatten(self.tree, made, (args, kwargs))
        make = functools.partial(unflatten, tensors=made, given=(args, kwargs), made={})
        result = make(self.tree)  # first, as it was taken apart: the others may refer to its parts
        self.effects.carry_out(make)
        return result

    def correct(self, made: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """The function has just run: what it left gets the numbers of the program. The result."""
        make = functools.partial(unflatten, tensors=made, given=(args, kwargs), made={})
        result = make(self.tree)
        self.effects.correct(make)
        return result

    def _there(self) -> contextlib.AbstractContextManager[Any]:
        if self._device is None:
            return contextlib.nullcontext()
        return backend.cuda_backend().at(self._device)

    def state(self, tensors: Sequence[Tensor]) -> State:
        """What a call with these arguments changes."""
        return State(self.program, self.leaves(tensors), self.words, tensors)

    def rehearse(
        self, tensors: Sequence[Tensor], state: State, results: Sequence[Any], after: Snapshot
    ) -> str:
        """How the program differs from what the function did; empty if it does not.

        state: that which the function found, and which is there again, before and after this.
        results, after: the results of the function, and what it made of the state.
        """
        self._end_fast()
        before = [leaf.grad for leaf in state.leaves]  # to be there still, whatever is found
        self._renew_kept(state.leaves)
        del before
        state.give_back()
        with self._there():
            try:
                found = rehearse(self.executor, state, results, after)
            except RehearsalError as error:
                cause: BaseException = error.cause
                if not (self.program.on_host or isinstance(cause, self.executor.failures)):
                    raise cause from None
                cause = cause.__cause__ or cause
                return f"{type(cause).__name__}: {cause}"
            if not found:
                return ""
            self.rest()  # what it has computed is not needed to find out how it rounds
            return beyond_rounding(state, found)

    def rest(self) -> None:
        """Let go of memory, until the program runs again."""
        self._end_fast()
        self.gradients = [None] * len(self.gradients)
        self.executor.rest()


class Compiled:
    """A function that captures what it does at its first call and replays it at later ones.

    Made by ``tensorgrad.compile``, which says what holds for it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        executor: str = "auto",
        verify: int = 0,
        limit: int = 8,
        asked: bool = True,
    ) -> None:
        """asked: whether somebody wants a program by name, so that it is an error if there can be
        none; else the function runs as it is then, with a warning."""
        # Attributes of a function are found here too: its code knows it by the name of this.
        own = ("__dict__",) if isinstance(function, types.FunctionType) else ()
        functools.update_wrapper(self, function, updated=own)
        self.function = function
        self._options = (executor, verify, limit, asked)
        self._executor = executor
        self._verify = verify
        self._limit = limit
        self._asked = asked
        self._begin()

    def _begin(self) -> None:
        self._entries: OrderedDict[Any, list[CapturedProgram]] = OrderedDict()
        self._last_used: CapturedProgram | None = None
        #: shapes of arguments -> the program used last for such, with its key: calls that differ in
        #: nothing else try it at once
        self._by_shapes: dict[Any, tuple[Any, CapturedProgram]] = {}
        self._misses: OrderedDict[Any, int] = OrderedDict()
        #: calls whose programs went since there were too many, and how often such came again
        self._let_go: OrderedDict[Any, None] = OrderedDict()
        self._returned = 0
        self._plain: OrderedDict[Any, str] = OrderedDict()  # calls that run as they are
        self._lock = threading.RLock()
        #: how often the function was captured
        self.captures = 0
        #: why calls run as they are; empty while all are replayed
        self.reasons: list[str] = []
        #: why the program was dropped for good, after a check found that it differed; or empty
        self.dropped = ""
        _COMPILED.add(self)

    # A copy has programs of its own: they refer to the memory that they were made for.

    def __copy__(self) -> Compiled:
        return Compiled(self.function, *self._options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        import copy

        return Compiled(copy.deepcopy(self.function, memo), *self._options)

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        module = sys.modules.get(str(getattr(self, "__module__", "")))
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:  # it stands where its function would: it goes by name, as that would
            return name
        return Compiled, (self.function, *self._options)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """``function(*args, **kwargs)``, replayed if it was called like this before."""
        mode = current_mode()
        last = self._last_used
        if (
            last is not None
            and last.fast is not None
            and not kwargs
            and not (last.turns is None or last.turns.inside)
            and (last.is_long or self._lock.acquire(False))
        ):
            if last.is_long:
                with last.turns, self._lock, GATE:
                    out = NotImplemented if last.fast is None else last.fast(*args)
            else:
                try:
                    out = NotImplemented if last.fast is None else last.fast(*args)
                finally:
                    self._lock.release()
            if out is not NotImplemented:
                return out[0] if last.single else unflatten(last.tree, out)
        try:
            return self._called(args, kwargs, mode, last)
        except StoppedError:
            pass  # the function itself says what is wrong, and leaves what it did before
        return self.function(*args, **kwargs)

    def _called(self, args: Any, kwargs: Any, mode: Any, last: CapturedProgram | None) -> Any:
        if any(o.records for o in mode.observers):
            return self.function(*args, **kwargs)  # part of what is being captured
        if self.dropped:
            return self.function(*args, **kwargs)
        if last is not None and not kwargs:
            with last.turns or All(), self._lock:
                if last.is_for(args, mode) and not self._is_to_be_checked(last):
                    result = last.replay(args, args)
                    last.make_quick(args)
                    return result
            if len(self._by_shapes) > 1 and self._exchanged(args, last):
                return self(*args)
        tensors: list[Tensor] = []
        key = (
            signature((args, kwargs), tensors),
            tuple(
                [
                    (t.data.shape, t.data.dtype.num, device_of(t.data), type(t.node), type(t))
                    for t in tensors
                ]
            ),
            relations([t.data for t in tensors]) if len(tensors) > 1 else (),
            ambient(),
        )
        if key in self._plain or mode.observers:
            return self.function(*args, **kwargs)  # an anomaly check wants to see it all
        with self._turns_of(key), self._lock:
            for entry in self._entries.get(key, ()):
                if entry.holds(tensors) and not self._is_to_be_checked(entry):
                    self._take(key, entry)
                    return entry.replay(tensors, args, kwargs)
        # What follows runs the function, and puts back what it does to any gradient.
        with All(), self._lock:
            broken: Any = None
            for entry in self._entries.get(key, ()):
                if entry.holds(tensors):
                    self._take(key, entry)
                    if self._is_to_be_checked(entry):
                        return self._checked(entry, tensors, args, kwargs)
                    return entry.replay(tensors, args, kwargs)
                broken = entry.guards.broken
            why = hindrance()
            if why:
                self._note_plain(key, why)
                _warn_once(self, why)
                return self.function(*args, **kwargs)
            if broken is None and key in self._let_go:
                self._returned += 1
                if self._returned > 2 * self._limit:
                    self._give_up(
                        key,
                        f"more than {self._limit} programs are wanted in turn, and each went "
                        "before it was wanted again; give compile(limit=...) as many as there are "
                        "shapes and modes, or pad the arguments to the same shape",
                    )
                    return self.function(*args, **kwargs)
                return self._capture(key, tensors, args, kwargs)
            misses = self._misses[key] = self._misses.pop(key, 0) + 1
            _bound(self._misses)
            if misses > _PATIENCE:
                for entry in self._entries.pop(key, ()):
                    self._forget(entry)
                self._give_up(
                    key,
                    f"what it depends on was another thing in {_PATIENCE} calls with the same "
                    f"arguments: {broken}",
                )
                return self.function(*args, **kwargs)
            return self._capture(key, tensors, args, kwargs)

    def _turns_of(self, key: Any) -> Several | All:
        """Those of the programs that a call may be replayed by."""
        with self._lock:
            made = [entry.turns for entry in self._entries.get(key, ())]
        return (
            All() if None in made else Several({t for turns in made if turns for t in turns.each})
        )

    def _take(self, key: Any, entry: CapturedProgram) -> None:
        self._last_used = entry
        self._entries.move_to_end(key)
        if entry.shapes is not None:
            self._by_shapes[entry.shapes] = key, entry

    def _forget(self, entry: CapturedProgram) -> None:
        """A program is kept no longer."""
        if self._by_shapes.get(entry.shapes, (None, None))[1] is entry:
            del self._by_shapes[entry.shapes]

    def _exchanged(self, args: Sequence[Any], last: CapturedProgram) -> bool:
        """Whether another program than ``last`` is now the one to be tried first."""
        if any(type(t) is not Tensor for t in args):
            return False
        with self._lock:
            found = self._by_shapes.get(tuple([t.data.shape for t in args]))
            if found is None or found[1] is last:
                return False
            self._take(*found)
            return True

    def _is_to_be_checked(self, entry: CapturedProgram) -> bool:
        every = self._verify
        return entry.is_due() or (every > 0 and (entry.calls - 1) % every == every - 1)

    def _note_plain(self, key: Any, why: str) -> None:
        self._plain[key] = why
        _bound(self._plain)
        if why not in self.reasons and len(self.reasons) < _REMEMBERED:
            self.reasons.append(why)

    def _give_up(self, key: Any, why: str) -> None:
        """Calls like this one run as they are from here on."""
        self._note_plain(key, why)
        _warn(f"{self._name} runs as it is from here on: {why}")

    @property
    def executor(self) -> str:
        """What ran the last call: "native", "numpy", "cuda", or "python" for the function itself.

        Empty before the first call.
        """
        entry = self._last_used
        if self.dropped or entry is None:
            return "python" if self.reasons else ""
        return str(entry.executor.name)

    @property
    def reason(self) -> str:
        """Why the last call was not run by the best executor, in one line; empty if it was."""
        entry = self._last_used
        if self.dropped or entry is None:
            return self.reasons[-1] if self.reasons else ""
        return " ".join(str(entry.executor.reason).split())

    @property
    def _name(self) -> str:
        return str(getattr(self, "__name__", type(self.function).__name__))

    # --- capture --------------------------------------------------------------------------------

    def _capture(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        guards = Guards()
        reads = Follower(self.function, args, kwargs, guards.enter)
        try:
            return self._captured(guards, reads, key, tensors, args, kwargs)
        finally:
            reads.release()

    def _captured(
        self,
        guards: Guards,
        reads: Follower,
        key: Any,
        tensors: list[Tensor],
        args: Any,
        kwargs: Any,
    ) -> Any:
        recorder = Recorder(tensors, guards.enter, asked=self._asked)
        around = ambient()
        with GATE:
            result = capture(lambda: self.function(*args, **kwargs), recorder, reads)
        if ambient() != around:
            reads.refuse(
                "a mode or a default (dtype, device, autocast) is changed by the step",
                "change it outside",
            )
        problem: Any = reads.refusals[0] if reads.refusals else recorder.refusal
        entry: CapturedProgram | None = None
        if problem is None:
            start = time.perf_counter()
            try:
                entry, wanted = self._entry(
                    guards, recorder, reads, result, tensors, around, args, kwargs
                )
            except CompileError as error:
                problem = error
        if problem is not None or entry is None:
            # What the function did stands, unless it is an error that it cannot be a program.
            why = str(problem)
            if not self._asked:
                self._give_up(key, why)
                return result
            recorder.roll_back()
            if isinstance(problem, CompileError):
                raise problem
            raise CompileError(f"this cannot be compiled: {why}")
        if not kwargs and len(tensors) == len(args):
            entry.expect(tensors)
        # The step that was captured is rolled back and replayed, so that every step is made by the
        # same code, whether it is the first one or not, and what it does is seen to be right.
        state = entry.state(tensors)
        after = state.rolled_back(recorder)
        recorder.release()
        executor = entry.executor
        with self._interrupted(state, after):
            different = entry.rehearse(tensors, state, wanted, after)
            if different and not isinstance(executor, REFERENCE):
                why = f"the {executor.name} executor did something else: {different}"
                entry.executor = REFERENCE(entry.program)
                entry.executor.reason = why
                entry.gradients = [None] * len(entry.gradients)
                different = entry.rehearse(tensors, state, wanted, after)
        if different:
            why = (
                f"a replay does not do what the function does: {different}. Something in it passes "
                "by tensorgrad; compute it outside, or do not compile the function"
            )
            if not self._asked:
                state.exchange(after)
                for leaf, tensor in entry.assigned:
                    leaf.grad = tensor
                self._give_up(key, why)
                return result
            raise CompileError(why)
        del after, wanted
        made = entry.run(tensors)
        state.give_back()
        result = entry.correct(made, args, kwargs)
        entry.calls = 1
        entry.verified = self._verify > 0
        entry.make_quick(tensors)
        entry.seconds = time.perf_counter() - start
        self.captures += 1
        self._entries.setdefault(key, []).insert(0, entry)
        self._take(key, entry)
        while sum(map(len, self._entries.values())) > self._limit:
            oldest = next(iter(self._entries))
            self._forget(self._entries[oldest].pop())
            self._let_go[oldest] = None
            _bound(self._let_go)
            if not self._entries[oldest]:
                del self._entries[oldest]
        return result

    def _entry(
        self,
        guards: Guards,
        recorder: Recorder,
        reads: Follower,
        result: Any,
        tensors: list[Tensor],
        around: tuple[Any, ...],
        args: Any,
        kwargs: Any,
    ) -> tuple[CapturedProgram, list[Any]]:
        """The program of a call that was recorded, and the results that it had.

        Raises CompileError if it cannot be one.
        """
        if hasattr(type(result), "__next__"):
            raise CompileError(
                "this cannot be compiled: it returns an iterator, whose code would run outside. "
                "Remedy: return a list"
            )
        found = Found((args, kwargs))
        tree = flatten(result, found, reads.is_outside)
        effects = effects_of(reads, found)
        guards.locate(reads)
        given = {t.node for t in tensors}
        with recorder.resumed():
            for t in found.tensors:
                if isinstance(t, LazyGradient):
                    t.make_dense()  # which is handed out whole
        left = [
            (leaf.grad, leaf)
            for leaf in recorder.touched
            if leaf.grad is not None and leaf not in given and not in_rows(leaf.grad)
        ]
        outputs = Outputs(found.tensors, tensors, guards.tensors(recorder), left)
        program = recorder.finish(outputs.fresh, found.tensors)
        device = _device_of(program, [t.data for t in tensors])
        with backend.backend_for(device).at(device), _no_collections():
            program = simplified(program)
            guards.complete(recorder, reads, program, tensors)
            executor = executor_of(program, self._executor)
            guards.reads += [g for found in program.relied_on.values() for g in found]
        wanted = [t.data for t in outputs.fresh]
        made = CapturedProgram(
            program, executor, guards, recorder, outputs, effects, tree, device, around
        )
        return made, wanted

    # --- the check ------------------------------------------------------------------------------

    def _checked(
        self, entry: CapturedProgram, tensors: list[Tensor], args: Any, kwargs: Any
    ) -> Any:
        """Run the function and the program on the same state, and compare all that they leave.

        What Python does happens once, by the function. The numbers that stay are the program's, so
        that they do not depend on which calls were checked. If they differ, the function's stay.
        """
        state = entry.state(tensors)
        # What the gradients were is forgotten by most steps before anything else.
        saved = state.copy(gradients=self._verify > 0 or state.reads_gradients)
        if state.is_large:
            entry.rest()
            state.give_back()
        noted = entry.effects.before()
        with GATE:
            result = self.function(*args, **kwargs)
        found, problem = Found((args, kwargs)), entry.effects.problem(noted)
        known = set(map(id, entry.constants))
        try:
            trees = [
                flatten(x, found, lambda o: id(o) in known)
                for x in (result, *entry.effects.values())
            ]
            if not all(map(alike, trees, entry.trees)):
                problem = problem or "it hands out something else"
        except CompileError as error:
            problem = problem or str(error)
        state.exchange(saved)
        if not problem:
            wanted = [found.tensors[k].data for k in entry.outputs.numbers]
            with self._interrupted(state, saved):
                problem = entry.rehearse(tensors, state, wanted, saved)
        if not problem:
            del saved
            made = entry.run(tensors)
            state.give_back()
            return entry.correct(made, args, kwargs)
        why = (
            f"a replay does not do what the function does: {problem}. The function depends on "
            "something that changed and that a program cannot see; pass it as an argument"
        )
        if self._verify:
            raise CompileError(f"{why}. Everything was put back to what it was before the call")
        state.exchange(saved)
        self.dropped = why
        self.reasons.append(why)
        self._entries.clear()
        self._by_shapes.clear()
        self._last_used = None
        _warn(f"{self._name} runs as it is from here on: {why}")
        return result

    @staticmethod
    @contextlib.contextmanager
    def _interrupted(state: State, after: Snapshot) -> Iterator[None]:
        """Whatever is raised within, as by somebody's Ctrl-C, what the function did stands."""
        try:
            yield
        except BaseException:
            state.exchange(after)
            raise

    def program(self) -> Program:
        """The program that was used last. Raises CompileError before the first call."""
        return self._last().program

    def source(self) -> str:
        """The code of the program that was used last: C or CUDA, or Python over NumPy.

        Raises CompileError before the first call, or if the function runs as it is.
        """
        return self._last().executor.text

    def _last(self) -> CapturedProgram:
        for entries in reversed(self._entries.values()):
            return entries[0]
        raise CompileError("nothing was captured yet; call the function first")

    def report(self) -> str:
        """What runs where, for the program that was used last."""
        if self.dropped:
            return f"runs as it is: {self.dropped}"
        if self.reasons and not self._entries:
            return "\n".join(f"runs as it is: {why}" for why in self.reasons)
        entry = self._last()
        executor = entry.executor
        head = (
            f"executor {executor.name}, {len(entry.program.instructions)} instructions, compiled "
            f"in {entry.seconds:.3f} s, {entry.replays} replays since"
        )
        reason = [executor.reason] if executor.reason else []
        plain = [f"some calls run as they are: {why}" for why in self.reasons]
        return "\n".join([head, *reason, *plain, *executor.lines()])


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Within, cycles are not collected: making a large program leaves none, and the collector would
    look through its objects again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_COMPILED: weakref.WeakSet[Compiled] = weakref.WeakSet()


def _forget_locks() -> None:
    """In the child after a fork: whoever held a lock is not here to release it."""
    for compiled in list(_COMPILED):
        compiled._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)

_WARNED: set[str] = set()


def _warn_once(compiled: Compiled, why: str) -> None:
    """Say once in a process why nothing can be compiled here."""
    if why not in _WARNED:
        _WARNED.add(why)
        _warn(f"compiled functions run as they are: {why}")


def _warn(text: str) -> None:
    """Warn whoever called into this package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and is_engine(str(frame.f_globals.get("__name__", ""))):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def _memory_of(gradient: Tensor) -> Any:
    """The array that a gradient shows, or that has its rows."""
    return gradient.lent_rows if isinstance(gradient, LazyGradient) else gradient.data


def _firsts(gradients: Sequence[Tensor | None]) -> list[int]:
    """For each gradient the number of the first one that is the same tensor.

    Raises CompileError for two tensors in the same memory: a replay gives each memory of its own.
    """
    first: dict[int, int] = {}
    owners: dict[int, list[Any]] = {}
    found = []
    for k, g in enumerate(gradients):
        found.append(k if g is None else first.setdefault(id(g), k))
        if g is not None and found[-1] == k and not in_rows(g):
            others = owners.setdefault(id(backend.of(g.data).memory_owner(g.data)), [])
            if any(_share_memory(g.data, other) for other in others):
                raise CompileError(
                    "this cannot be compiled: the gradients of two tensors are left in the same "
                    "memory. Remedy: give one of them a copy, as in p.grad = g.clone()"
                )
            others.append(g.data)
    return found


def _share_memory(a: Any, b: Any) -> bool:
    return type(a) is not np.ndarray or bool(np.shares_memory(a, b))


def _bound(table: OrderedDict[Any, Any]) -> None:
    while len(table) > _REMEMBERED:
        table.popitem(last=False)


def _device_of(program: Program, arguments: Sequence[Any]) -> str:
    """The GPU that a program runs on, or "cpu"."""
    if program.on_host:
        return "cpu"
    for array in [*arguments, *[v.array for v in program.values()]]:
        if is_array(array) and type(array) is not np.ndarray:
            return backend.of(array).device_of(array)
    return backend.cuda_backend().current_device()


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
    function itself would have left them; so are results that it appends to a list or puts into an
    attribute, an item or a variable, and counters. What else it says (print, logging) is said when
    it is captured or checked. What it returns has no history.

    Everything that Python read of its surroundings is looked at again before each replay, and
    where it changed the function is captured once more. At the calls 2, 4, 8, 16, ... after a
    capture the function runs too: if it does something else, its numbers stand and it runs as it
    is from then on (``dropped`` says why).

    On a GPU the program becomes generated kernels and matrix products, which are launched as one
    CUDA graph. (Compiled for five architectures and emulated; not yet run on a GPU.)

    function: any function of tensors, hashable constants, and tuples, lists and dicts of them; a
        module too. Used as a decorator it may be left out.
    executor: "numpy" (call by call), "native" (C, needs a compiler), or "auto" for the best that is
        there. On a GPU the latter two mean the executor for CUDA.
    verify: n compares every n-th replay with the function itself (True: each one).
    limit: how many programs are kept, of other shapes, modes or constants; the one that was used
        longest ago goes first. Where more are wanted in turn, the rest runs as it is, with a
        warning.

    Raises CompileError if something in the function cannot be captured, and says where.
    """
    names = ["auto", *[name for name, kind in EXECUTORS.items() if kind.fits(on_host=True)]]
    if executor not in names:
        raise ValueError(f"compile: executor must be one of {', '.join(names)}; got {executor!r}")
    if limit < 1:
        raise ValueError(f"compile: limit must be at least 1, got {limit}")
    if function is None:
        return functools.partial(compile, executor=executor, verify=verify, limit=limit)
    if not callable(function):
        raise TypeError(f"compile: a function is needed, got {type(function).__name__}")
    return Compiled(function, executor, int(verify), limit)
