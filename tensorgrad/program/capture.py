"""Capture: one real call of a function, written down as a program.

The function runs as usual, on the real arguments, while every computation is dispatched and
recorded: forward, gradient rules, optimizer updates. Arrays are told apart by identity, so that
``detach``, a value saved for a rule, or a parameter met in two places need nothing special; those
that the step lets go of are not kept (``recorded_arrays.py``).
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.fft  # by itself NumPy would load it within a step, whose globals stay as they are

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.dtypes import FLOATS
from tensorgrad.errors import CompileError, user_line
from tensorgrad.observers import MODE, RECORDING, Observer, current_mode
from tensorgrad.ops.numbers import constant
from tensorgrad.program.bytecode.follower import Follower
from tensorgrad.program.bytecode.watch import watching
from tensorgrad.program.definition import reads_of
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.program.recorded_arrays import RecordedArrays
from tensorgrad.sparse import LazyGradient
from tensorgrad.tape import CAST, Leaf, Primitive
from tensorgrad.tensor import Tensor
from tensorgrad.versions import increment_versions


def _told(method: Callable[..., None]) -> Callable[..., None]:
    """A method of the recorder that is called from within the user's step.

    After a refusal it does nothing. Where nobody asked for a program, a refusal ends the recording
    and not the step; a mistake of the recorder never ends it with an error of another kind.
    """

    @functools.wraps(method)
    def call(self: Recorder, *given: Any) -> None:
        if self.refusal is not None:
            return
        try:
            method(self, *given)
        except CompileError as error:
            self.refusal = error
        except Exception as error:
            self.refusal = CompileError(
                f"this cannot be compiled: it could not be recorded ({type(error).__name__}: "
                f"{error})"
            )
            self.refusal.__cause__ = error
        if self.refusal is not None and self.asked:
            raise self.refusal

    return call


class Recorder(Observer):
    """Writes down what is dispatched; see the module."""

    records = True

    def __init__(
        self,
        arguments: Sequence[Tensor],
        enter: Callable[[Any], None] = lambda module: None,
        asked: bool = True,
    ) -> None:
        """arguments: those of the step. enter: told of every module before it is called. asked:
        whether a refusal is an error in the step."""
        self.program = Program()
        self.asked = asked
        #: why the step cannot be a program
        self.refusal: CompileError | None = None
        self._enter = enter
        #: (optimizer, number of the group, number of the bundle) of every update
        self.updates: list[tuple[Any, int, int]] = []
        #: optimizers that forget the gradients of their parameters
        self.cleared: list[Any] = []
        #: tensors from outside, each with the value that it has there
        self.externals: list[tuple[Tensor, Value]] = []
        #: generators, and how many words of each the step uses up
        self.words: dict[Any, int] = {}
        self.leaves: dict[Leaf, Any] = {}  # with the gradient that each had at first
        #: by the id of its array: a gradient from before the step, and its leaf
        self._with_gradient: dict[int, tuple[Leaf, Tensor]] = {}
        #: leaves whose gradient the step changes, and whether it does so by replacing it first
        self.touched: dict[Leaf, bool] = {}
        #: leaves that have got a tensor from outside as their gradient
        self.assigned: list[tuple[Leaf, Tensor]] = []
        self.looked_at: set[Leaf] = set()  # leaves whose gradient from before was asked for
        self.at_first: dict[Leaf, Value] = {}  # leaves whose gradient from before is used
        self._start = Leaf((), np.dtype(np.float32)).position  # later entries count downwards
        self._count = 0
        self._arrays = RecordedArrays()
        #: numbers of the memory of what was reshaped, and of what came of it
        self._reshaped: list[tuple[int, int]] = []
        #: whether it depends on how arrays lie in memory which of them share it
        self.by_layout = False
        self._stale: set[Value] = set()  # of whose memory another value has been overwritten
        self._began: dict[Any, tuple[int, int]] = {}  # generators, and their states at the start
        self._draws: dict[tuple[int, int], Drawn] = {}  # by key and position
        #: by id: arrays overwritten, and what was in them
        self._saved: dict[int, tuple[Any, Any]] = {}
        self._update: tuple[Any, int, int] | None = None
        self._given = [(tensor, tensor.data) for tensor in arguments]
        for k, tensor in enumerate(arguments):
            self.program.arguments.append(self._new(tensor.data, "argument", f"{k}"))
            self._note_leaf(tensor)

    # --- values ---------------------------------------------------------------------------------

    def _new(self, array: Any, role: str, label: str = "", fetch: Any = None) -> Value:
        value = Value(self._count, array.shape, array.dtype, role, label, fetch)
        if role == "constant":
            value.array = array.copy()
        elif role == "external":
            value.array = array
        self._count += 1
        self._arrays.hold(array, value)
        if type(array) is not np.ndarray:
            self.program.on_host = False
        if role in ("argument", "external"):
            self._arrays.keep(array)
        if role == "external" and self._arrays.is_overwritten(array):
            self.program.aliased = True
            self.program.touched[value] = None
        self._arrays.show(array, value)
        return value

    def known(self, array: Any) -> Value | None:
        """The value that ``array`` holds now, if it was met before."""
        return self._arrays.value(array)

    def constant(self, array: Any, label: str = "") -> Value:
        """A value that is the same in every replay."""
        return self.known(array) or self._new(array, "constant", label)

    def _value(self, x: Any) -> Any:
        """What stands for an operand."""
        if not isinstance(x, Tensor):
            return x
        found = self.known(x.data)
        if found is not None:
            if found in self._stale:
                self.program.aliased = True
            return found
        if _is_engines_own(x.data):
            return self.constant(x.data)
        return self._external(x)

    def _external(self, tensor: Tensor) -> Value:
        """A tensor that was there before the step."""
        array = tensor.data
        leaf, before = self._with_gradient.get(id(array), (None, None))
        if leaf is not None and before is not None and before.data is array:
            value = self._new(array, "external", "gradient")
            value.fetch = lambda leaf=leaf: leaf.grad.data
            self.at_first[leaf] = value
            return value
        value = self._new(array, "external", fetch=lambda: tensor.data)
        self.externals.append((tensor, value))
        self._note_leaf(tensor)
        return value

    def _note_leaf(self, tensor: Tensor) -> None:
        leaf = tensor.node
        if type(leaf) is Leaf and leaf.position >= self._start:
            self._meet(leaf)

    def _meet(self, leaf: Leaf) -> None:
        """Remember the gradient of a leaf that the step has not changed yet."""
        if leaf not in self.leaves:
            self.leaves[leaf] = leaf.grad
            if leaf.grad is not None:
                self._with_gradient.setdefault(id(leaf.grad.data), (leaf, leaf.grad))

    # --- what dispatch says ----------------------------------------------------------------------

    @_told
    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """Write an instruction; see Observer."""
        if op.data_dependent:
            raise _refused(
                f"the shape of what {op.name} gives depends on the numbers in its input",
                "compute with a mask of fixed shape, as in tg.where(mask, x, 0.0), or call it "
                "outside the compiled function",
            )
        self._note_reads(op)
        values = tuple(map(self._value, inputs))
        attrs = dict(attrs)
        outputs: list[Value] = []
        residual = attrs.pop("r", None) if op.residual is not None else None
        live = self._live(op, attrs)
        written = tuple(op.mutated(len(inputs))) if op.mutates else ()
        written = tuple(k for k in written if values[k] is not None)
        if not written or not any(out.data is inputs[k].data for k in written):
            outputs.append(self._new(out.data, "temporary"))
        if op.view_or_copy and isinstance(inputs[0], Tensor):
            memory = self._arrays.memory
            self._reshaped.append((memory(inputs[0].data), memory(out.data)))
        instruction = Instruction(op, values, attrs, outputs, live, where=user_line())
        if residual is not None:
            parts = [a for a in _parts(residual) if is_array(a)]
            for array in parts:
                outputs.append(self.known(array) or self._new(array, "temporary"))
            instruction.residual = len(parts)
        if written:
            instruction.written = written
            for k in written:
                outputs.append(self._overwritten(inputs[k].data, values[k]))
        self.program.instructions.append(instruction)

    def _note_reads(self, op: Primitive) -> None:
        """Remember what the value of a user's operation reads, and whether it stays the same."""
        known = self.program.reads
        if op not in known:
            found = reads_of(op)
            if found is not None:
                known[op] = found
        elif type(known[op]) is list and not all(guard.holds() for guard in known[op]):
            known[op] = "what its value reads changes within the step"

    def _overwritten(self, array: Any, before: Value) -> Value:
        # A view of the same memory shows the new numbers from here on. One from outside might do so
        # at any time; one made by the step does no harm unless it is used again.
        self._arrays.write(array)
        self.program.touched.update(dict.fromkeys(self._outside_in(array)))
        for other in self._arrays.overlapping(array):
            if other.place is not before.place:
                if other.role != "temporary" or before.place.role == "temporary":
                    self.program.aliased = True
                self._stale.add(other)
        value = Value(self._count, array.shape, array.dtype, "temporary", before=before)
        self._count += 1
        self._arrays.hold(array, value)
        return value

    def _outside_in(self, array: Any) -> list[Value]:
        """The values from outside that lie in the memory of ``array``, if in part."""
        return [v for v in self._arrays.overlapping(array) if v.role in ("external", "argument")]

    def _live(self, op: Primitive, attrs: dict[str, Any]) -> Callable[[], Mapping[str, Any]] | None:
        if op.random:
            return self._draws.get((attrs["key"], attrs["position"]))
        if self._update is not None and op.live:
            optimizer, number, _ = self._update
            self._update = None
            return Options(optimizer, number, op.live)
        return None

    @_told
    def overwriting(self, arrays: Sequence[Any]) -> None:
        """Keep what is about to be overwritten: a replay begins with it; see Observer."""
        for array in arrays:
            if array is None:
                continue
            outside = self.known(array) is None or self._outside_in(array)
            if outside and id(array) not in self._saved:
                self._saved[id(array)] = array, backend.copied(array)

    @_told
    def created(self, tensor: Tensor, source: Any) -> None:
        """A tensor made inside the step: filled, or from numbers, or a copy; see Observer."""
        array = tensor.data
        if self.known(array) is not None:
            return
        if isinstance(source, Tensor):
            copied = self._value(source)
            out = self._new(array, "temporary")
            self.program.instructions.append(
                Instruction(CAST, (copied,), {"dtype": array.dtype}, [out], where=user_line())
            )
        elif is_array(source) or (hasattr(source, "__array__") and not np.isscalar(source)):
            raise _refused(
                f"a tensor is made from an array of shape {np.shape(source)} inside the compiled "
                "function, which a replay would not see change",
                "pass the tensor as an argument, or make it once outside",
            )
        else:
            self.constant(array)

    @_told
    def read(self, tensor: Tensor, how: str) -> None:
        """Refuse it; see Observer."""
        raise _refused(
            f"{how} reads the value of a tensor of shape {tensor.shape}, and what Python does with "
            "it would not be repeated",
            "return the tensor and read it outside, or choose with tg.where instead of if",
        )

    @_told
    def drew(self, generator: Any, words: int) -> None:
        """Remember where the generator stood; see Observer."""
        key, position = generator.state()
        start = self._began.setdefault(generator, (key, position))[1]
        self._draws[key, position] = Drawn(generator, position - start)

    @_told
    def seeded(self, generator: Any) -> None:
        """Refuse it; see Observer."""
        raise _refused(
            "a generator is seeded inside the compiled function", "seed it outside, before the call"
        )

    def clearing(self, optimizer: Any) -> None:
        """Remember whose parameters count; see Observer."""
        self.cleared.append(optimizer)

    @_told
    def updating(self, optimizer: Any, number: int, bundle: int) -> None:
        """Remember whose update comes; see Observer."""
        if optimizer.made_at < self._start:
            raise _refused(
                "an optimizer is made inside the compiled function: it would begin anew in every "
                "call, and a replay goes on with the state of the one before",
                "make the optimizer outside, once",
            )
        self._update = (optimizer, number, bundle)
        self.updates.append(self._update)
        of = optimizer._plans[number].bundles[bundle]
        for p in of.params:
            self._note_leaf(p)
            if self.known(p.data) is None:
                self._external(p)
        names = ["step", *optimizer.states]
        for name, array in zip(names, of.heads):
            if array is not None and self.known(array) is None:
                value = self._new(array, "external", name)
                # The bundle is part of what has to be the same for a replay.
                value.fetch = lambda array=array: array

    @_told
    def entered(self, module: Any) -> None:
        """Pass it on; see Observer."""
        self._enter(module)

    @_told
    def changed_gradient(self, leaf: Leaf, cleared: bool) -> None:
        """Remember the leaf, and the gradient that it had; see Observer."""
        if leaf.position < self._start:
            return  # it was made by the step itself, and goes with it
        self._meet(leaf)
        if leaf not in self.touched:
            self.touched[leaf] = cleared

    @_told
    def looked_at_gradient(self, leaf: Leaf) -> None:
        """Remember whose gradient it is, so that a replay takes the one of then; see Observer."""
        if leaf.position >= self._start and leaf not in self.touched:
            self._meet(leaf)
            self.looked_at.add(leaf)

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, results: Sequence[Tensor], handed_out: Sequence[Tensor]) -> Program:
        """The program, once the function has returned ``handed_out``.

        results: those of them that the program computes.
        """
        program = self.program
        self.by_layout = self._depends_on_layout(handed_out)
        program.results = [self._value(t) for t in results]
        for tensor, array in [*self._given, *[(t, v.array) for t, v in self.externals]]:
            if tensor.data is not array:
                raise _refused(
                    f"a tensor of shape {array.shape} from outside the function was given other "
                    "data in it, as x[index] = y does where y requires a gradient",
                    "write x.copy_(y) under no_grad(), or x = tg.index_put(x, index, y)",
                )
        numbers = []
        for leaf in self.touched:
            grad = leaf.grad
            if isinstance(grad, LazyGradient) and grad.in_program:
                numbers.append(self._finish_rows(leaf, grad))
                continue
            held = None if grad is None else self.known(grad.data)
            if held in self._stale:
                program.aliased = True
            if grad is None or (held is not None and held.role == "temporary"):
                program.gradients.append((leaf, held))
            elif held is not None and held.role in ("argument", "constant"):
                raise _refused(
                    f"an argument or a constant of shape {held.shape} was assigned to .grad",
                    "assign a copy of it: p.grad = g.clone()",
                )
            elif grad is not self.leaves[leaf]:
                self.assigned.append((leaf, grad))
        program.gradients += [(None, value) for value in numbers]
        for generator, (_, start) in self._began.items():
            self.words[generator] = generator.state()[1] - start
        return program

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Within, it writes down what is dispatched, after the function has returned."""
        mode = current_mode()
        token = MODE.set(mode._replace(grad=False, observers=(*mode.observers, self)))
        RECORDING.append(self)
        try:
            yield
        finally:
            MODE.reset(token)
            RECORDING.remove(self)

    def _finish_rows(self, leaf: Leaf, grad: LazyGradient) -> Value:
        """Note a gradient that is kept as rows. The value that has their numbers."""
        with self.resumed():
            keys, rows = (self._own(t) for t in grad.as_one())
        self.program.rows[leaf] = type(grad), grad.shape
        self.program.gradients.append((leaf, rows))
        return keys

    def _own(self, tensor: Tensor) -> Value:
        """The value of a tensor, computed once more if somebody else sees it."""
        value = self._value(tensor)
        if value.role == "temporary" and value not in self.program.kept():
            return value
        copied: Value = self._value(tensor.clone())
        return copied

    def _depends_on_layout(self, handed_out: Sequence[Tensor]) -> bool:
        """Whether somebody can tell if what was reshaped is a view or a copy of what it was.

        It is a view where the elements lie in order. The two can be told apart where one is
        overwritten, or where both are seen outside; and a user's own function that is called with
        arrays may ask for their strides.
        """
        if any(type(reads) is str for reads in self.program.reads.values()):
            return True
        arrays = self._arrays
        given = [arrays.memory(t.data) for t in handed_out]
        outside = {
            memory
            for memory, shown in arrays.shown.items()
            if any(v.role in ("argument", "external") for v, _ in shown)
        }
        for before, after in self._reshaped:
            if before in arrays.written or after in arrays.written:
                return True
            seen = given.count(after) + (given.count(before) if before != after else 0)
            if after in given and (before in outside or seen > 1):
                return True
        return False

    def saved(self) -> list[tuple[Any, Any]]:
        """The arrays that the step overwrites, and what was in them."""
        return list(self._saved.values())

    def roll_back(self, exchanged: Sequence[Any] = ()) -> None:
        """Put everything outside the step back to what it was.

        exchanged: arrays whose numbers are back already.
        """
        done = set(map(id, exchanged))
        for array, saved in reversed(self._saved.values()):
            place = backend.of(array)
            with place.at(place.device_of(array)):
                # If it is not writeable, it was not overwritten.
                if id(array) not in done and getattr(array.flags, "writeable", True):
                    array[...] = saved
        increment_versions([array for array, _ in self._saved.values()])
        for leaf in self.touched:
            leaf.grad = self.leaves[leaf]
        for generator, state in self._began.items():
            generator.set_state(state)

    def release(self) -> None:
        """Let go of the arrays of the captured call, when the program is made and all is put back.

        They would be there while the program gets memory of its own.
        """
        self._arrays.clear()
        self._saved.clear()
        self._with_gradient.clear()
        self.leaves.clear()


class Drawn:
    """The position of a draw: that of its generator at the start of the replay, and some more."""

    __slots__ = ("generator", "offset")

    def __init__(self, generator: Any, offset: int) -> None:
        self.generator = generator
        self.offset = offset

    def __call__(self) -> Mapping[str, Any]:
        """The key and the position of the draw, for the replay that is about to run."""
        key, position = self.generator.state()
        return {"key": key, "position": position + self.offset}


class Options:
    """The options of an optimizer's group that a schedule may change."""

    __slots__ = ("group", "names", "optimizer")

    def __init__(self, optimizer: Any, number: int, names: tuple[str, ...]) -> None:
        self.optimizer = optimizer
        self.group = optimizer.param_groups[number]
        self.names = names

    def __call__(self) -> Mapping[str, Any]:
        """The options as they are now."""
        return {name: self.group[name] for name in self.names}


def _is_engines_own(array: Any) -> bool:
    """Whether it is a ``numbers.constant``, which nobody writes to."""
    if type(array) is not np.ndarray or array.ndim or array.flags.writeable:
        return False
    return array.dtype in FLOATS and constant(array.item(), array.dtype) is array


def _parts(residual: Any) -> Sequence[Any]:
    return residual if isinstance(residual, tuple) else (residual,)


def _refused(what: str, remedy: str) -> CompileError:
    return CompileError(f"this cannot be compiled: {what}. At {user_line()}. Remedy: {remedy}")


def _python_draws() -> tuple[Any, ...]:
    """The state of the global generators of Python and NumPy: they change with every draw."""
    legacy: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), legacy[1].tobytes(), legacy[2]


def capture(function: Callable[[], Any], recorder: Recorder, reads: Follower) -> Any:
    """What ``function`` returns, called while what it computes and what it reads is written down.

    If the function fails, what it did before stands, as it does when it is called as it is. If it
    is refused in the middle, what it overwrote outside is put back.
    """
    mode = current_mode()
    token = MODE.set(mode._replace(observers=(*mode.observers, recorder)))
    RECORDING.append(recorder)
    try:
        drawn = _python_draws()
        try:
            with watching(reads):
                result = function()
        finally:
            MODE.reset(token)
            RECORDING.remove(recorder)
        if _python_draws() != drawn:
            reads.refuse(
                "random numbers of Python or NumPy are drawn inside the compiled function",
                "draw them with tensorgrad (tg.random.uniform and its kin), or outside",
            )
        return result
    except BaseException:
        if recorder.asked and recorder.refusal is not None:
            recorder.roll_back()
        raise
