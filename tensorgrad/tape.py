"""The tape: dispatch, which every array computation passes, and the nodes that it records.

``apply`` runs a primitive on tensors and, where a gradient will be wanted, puts a node on the tape;
the backward pass (backward.py) visits the nodes in descending position and applies their rules.

The tape is not a list that somebody has to clear. A ``Node`` is referred to by the tensor it
produced and by the nodes computed from that tensor, so it dies with the last of them, by reference
counting alone. What makes these nodes a tape is their position: a number that only grows. A
backward pass in descending position needs neither sorting nor recursion, since whatever used a
value has a higher position than the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import count
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy import asarray, ndarray

from tensorgrad import backend, dtypes
from tensorgrad.backend import BACKENDS, is_array
from tensorgrad.backend.base import Array, Backend, Value
from tensorgrad.backend.cpu import CPU
from tensorgrad.dtypes import COMPLEX, FLOATS, HALVES, INEXACT, WIDE_FLOATS, float32
from tensorgrad.errors import DeviceError, DtypeError, explained
from tensorgrad.observers import AUTOCAST_DTYPE, AUTOCASTS
from tensorgrad.observers import MODE as MODE  # for those who observe what passes here
from tensorgrad.observers import Observer as Observer
from tensorgrad.observers import current_mode as current_mode
from tensorgrad.turns import Turns
from tensorgrad.versions import increment_versions, next_position

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor


# --- primitives and nodes -------------------------------------------------------------------------


class Rule:
    """How the gradient of a primitive's output becomes that of its input number ``index``.

    ``function(g, ...)`` says by its parameter names what it needs besides the incoming gradient
    ``g``: ``y`` (the output), an input by name, ``<input>_shape``, or an attribute by name.
    Exactly that is saved.
    """

    __slots__ = (
        "eager", "function", "get", "gives_parts", "index", "keeps_shape", "names", "one", "pick",
    )  # fmt: skip

    def __init__(self, function: Callable[..., Any], index: int, inputs: Sequence[str]) -> None:
        self.function = function
        #: what bare arrays are given to where nobody watches: the function, a kernel of it, or what
        #: gives a part (see Primitive)
        self.eager = function
        #: whether ``eager`` may give a part
        self.gives_parts = False
        self.index = index
        #: whether the gradient of the input has the shape of that of the output
        self.keeps_shape = False
        self.names = parameters_of(function)[1:]
        #: the place in ``(y, *arrays)`` of the one value named, if it is just one
        self.one: int | None = None
        if len(self.names) == 1 and not any(name.startswith("*") for name in inputs):
            if self.names[0] in inputs:
                self.one = inputs.index(self.names[0]) + 1
            elif self.names[0] == "y":
                self.one = 0
        #: ``get((y, *arrays))`` gives the values named, unless an attribute is among them: then
        #: it is None and ``pick((y, *arrays), attrs)`` does.
        self.get, self.pick = _pickers(self.names, inputs)


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters; read off the code where that can be, which is quicker."""
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        code = function.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    from inspect import signature

    return tuple(signature(function).parameters)


def _pickers(
    names: Sequence[str], inputs: Sequence[str]
) -> tuple[Callable[[Any], Any] | None, Any]:
    """How to pick the values named, as a tuple; see Rule. One of the two is ``None``."""
    places = {"y": "env[0]"}  # unless an input has that name
    places.update({name.lstrip("*"): f"env[{i}]" for i, name in enumerate(inputs, 1)})
    if inputs and inputs[-1].startswith("*"):
        places[inputs[-1][1:]] = f"env[{len(inputs)}:]"
    texts = []
    for name in names:
        of, _, what = name.rpartition("_")
        if name in places:
            texts.append(places[name])
        elif what in ("shape", "dtype") and of in places:
            texts.append(f"{places[of]}.{what}")
        else:
            texts.append(f"attrs[{name!r}]")
    if texts and all(name in ("y", *inputs) for name in names):
        at = [inputs.index(name) + 1 if name in inputs else 0 for name in names]
        # of one index it would not give a tuple; of a slice it does
        return itemgetter(*at) if len(at) > 1 else itemgetter(slice(at[0], at[0] + 1)), None
    # As one expression it takes a third of the time that a call for each name would.
    body = "(" + "".join(text + ", " for text in texts) + ")"
    if "attrs" in body:
        return None, _evaluated(f"lambda env, attrs: {body}")
    return _evaluated(f"lambda env: {body}"), None


@cache
def _evaluated(expression: str) -> Callable[..., Any]:
    function: Callable[..., Any] = eval(expression)
    return function


#: From a node to one of its inputs: the rule, the values saved for it, and the input's node.
Edge = tuple["Rule", tuple[Any, ...], "Node"]


class Node:
    """One computed tensor on the tape, with an edge to each input that needs a gradient.

    ``edges`` is ``None`` once a backward pass has used the node up.
    """

    __slots__ = ("edges", "grad", "hooks", "keeps_grad", "op", "position", "shape", "where")

    grad: Tensor | None  # unset until there is one, as keeps_grad and where
    keeps_grad: bool
    where: str

    def __init__(self, op: Primitive, edges: tuple[Edge, ...], shape: tuple[int, ...]) -> None:
        self.position = next_position()
        self.op = op
        self.edges: tuple[Edge, ...] | None = edges
        self.shape = shape
        #: a list, even if it is empty, keeps the node off the fast path of the backward pass
        self.hooks: list[Callable[[Tensor], Tensor | None]] | None = None


#: ``Node(...)`` as a function, for nodes made by ``new_object``: it is quicker than the class.
init_node = Node.__init__


class Leaf(Node):
    """The node of a tensor that the user made with ``requires_grad=True``.

    It holds the tensor's ``.grad``, and not the tensor, so that no reference cycle arises.
    """

    __slots__ = ("dtype", "turns")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(LEAF, (), shape)
        self.dtype = dtype
        self.grad = None
        if dtype.kind == "c":
            self.hooks = []  # its gradient is conjugated where hooks are shown theirs
        #: whose turn it is, where programs change the gradient besides; see ``turns.py``
        self.turns: Turns | None = None


class Deferred(Node):
    """A node that stands for a part of the tape which ``expand`` recomputes when needed.

    ``expand(gradient, retain, kept)`` gives pairs of a node and the gradient that reaches it; in
    ``kept`` deferred nodes leave things for one another during a pass.
    """

    __slots__ = ()

    def __init__(self, op: Primitive, edges: tuple[Edge, ...], shape: tuple[int, ...]) -> None:
        super().__init__(op, edges, shape)
        self.hooks = []

    def expand(
        self, gradient: Any, retain: bool, kept: dict[Node, Any]
    ) -> Iterable[tuple[Node, Any]]:
        """The nodes that take this one's place, each with its gradient."""
        raise NotImplementedError


#: All primitives that there are, in the order in which they were made.
PRIMITIVES: WeakValueDictionary[int, Primitive] = WeakValueDictionary()
_numbers = count()


class Primitive:
    """One row of the table: a name, how to compute the value, and a gradient rule per input.

    value: the name of a function that NumPy and CuPy share, or ``value(xp, *arrays, **attrs)``.
    rules: input name -> gradient rule, or ``None`` where there is no gradient. The order of the
        names is the order of the inputs. A last name that starts with ``*`` stands for any number
        of inputs. Its rule serves each of them, and may name ``index``, the number of the one in
        question; rules that name the whole tuple are for inputs that need no gradient themselves.
    promotion: what the inputs are converted to before the value is computed:
        ``"same"`` one common dtype; ``"float"`` a common floating dtype; ``"bool"`` like "same",
        for comparisons; ``"any"`` no conversion.
    promoted: positions of the inputs that take part in the conversion; all if ``None``.
    half_in_float32: compute 16-bit floats in float32 and round once.
    mutates: positions of the inputs whose memory the value function writes to, or how to get
        them from the number of inputs, where that varies. An absent input (``None``) is skipped.
    explain: ``explain(*shapes, **attrs)`` says after a failure which shapes would have fitted.
    residual: given where the value function returns a pair: the value, and something it had to
        compute on the way that the rules may name ``r``. When rules are recorded themselves, it
        is this function of what the rule names besides.
    loops: what programs turn into loops in place of ``value``, where another form of it is the
        better one there: ``loops(xp, *arrays, **attrs)`` with a ``backend.namespace.Namespace``.
    source: the function of a user's that the value function calls, if it is not that itself.
    part: what the backward pass uses in place of the rule of the first input, the only one with a
        rule, for bare arrays: of the rule's parameters it gives a part of a gradient (ops/parts.py)
        or the whole.
    kernel: the name under which backend/launch has hand-written CUDA kernels for the value, for
        all gradients at once, or for both. The value and the rules above remain the definition.
    together: ``together(g, needed, saved)`` gives the gradients of all inputs at once, for rules
        that would do the same work over; see ``Backend.gradients``. The rules are for where they
        are recorded themselves, or where it gives ``None``.

    Facts, which those who execute and count go by (``tests/ops/test_facts.py`` tries them all):

    elementwise: the shapes of the inputs broadcast, and each element of the result is computed
        from those at its place alone.
    moves: each element of the result is one of an input or a constant, whatever the numbers are.
    fresh: the result never shares memory with an input; true of a function known by its name.
    view_or_copy: whether it does depends on how the input lies in memory.
    data_dependent: the shape of the result depends on the numbers in the inputs.
    random: the value is drawn, as the attributes ``key`` and ``position`` say, which are live.
    live: the attributes that may be others in every replay of a program.
    autocast: what float tensors become inside ``autocast``: "half", or "float32" again.
    flops: ``flops(*inputs, out)``, the floating-point operations, where they are not one for each
        element of the largest array (none for what moves).
    complex: whether value and rules serve complex numbers, which others refuse; or the primitive
        that takes this one's place there. What moves elements does. Rules pair gradients without
        conjugation: of a function with a derivative they are the same for real and complex numbers.
    """

    __slots__ = (
        "__weakref__", "_flops", "autocast", "complex", "cpu", "cuda", "data_dependent", "eager",
        "elementwise", "explain", "fresh", "half_in_float32", "has_rules", "inputs", "kept",
        "kernel", "live", "loops", "moves", "mutates", "name", "promoted", "promotion", "random",
        "residual", "rules", "slow", "source", "together", "value", "variadic", "view_or_copy",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        value: Value,
        rules: Mapping[str, Callable[..., Any] | None],
        *,
        promotion: str = "any",
        promoted: frozenset[int] | None = None,
        half_in_float32: bool = False,
        mutates: tuple[int, ...] | Callable[[int], Iterable[int]] = (),
        explain: Callable[..., str] | None = None,
        residual: Callable[..., Any] | None = None,
        loops: Callable[..., Any] | None = None,
        source: Callable[..., Any] | None = None,
        part: Callable[..., Any] | None = None,
        kernel: str | None = None,
        together: Callable[..., Sequence[Any] | None] | None = None,
        elementwise: bool = False,
        moves: bool = False,
        fresh: bool | None = None,
        view_or_copy: bool = False,
        data_dependent: bool = False,
        random: bool = False,
        live: tuple[str, ...] = (),
        autocast: str = "",
        flops: Callable[..., int] | None = None,
        complex: bool | Primitive | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.inputs = tuple(rules)
        self.variadic = any(name.startswith("*") for name in self.inputs)
        self.rules = tuple(
            None if rule is None else Rule(rule, i, self.inputs)
            for i, rule in enumerate(rules.values())
        )
        if part is not None and self.rules[0] is not None:
            self.rules[0].eager, self.rules[0].gives_parts = part, True
        self.has_rules = any(rule is not None for rule in self.rules)
        self.promotion = promotion
        self.promoted = promoted
        self.half_in_float32 = half_in_float32
        self.mutates = mutates
        self.explain = explain
        self.residual = residual
        self.loops = loops
        self.source = source
        self.kernel = kernel
        self.together = together
        self.elementwise = elementwise
        self.moves = moves
        self.fresh = isinstance(value, str) if fresh is None else fresh
        self.view_or_copy = view_or_copy
        self.data_dependent = data_dependent
        self.random = random
        self.live = ("key", "position") if random else live
        self.autocast = autocast
        self._flops = flops
        self.complex = moves if complex is None else complex
        #: the dtypes of bare arrays that ``eager`` is not for
        self.slow = (HALVES if half_in_float32 else frozenset()) | (
            frozenset() if self.complex is True else COMPLEX
        )
        self.cpu = CPU.bind(value)
        #: what NumPy's arrays are given to where nobody watches: ``cpu``, or a kernel of it
        self.eager = self.cpu
        #: the value as a function of a GPU's arrays, once ``on`` was asked for it
        self.cuda: Callable[..., Any] | None = None
        #: what the rules name, once ``apply`` was given an array beside tensors
        self.kept: frozenset[str] | None = None
        PRIMITIVES[next(_numbers)] = self

    def mutated(self, count: int) -> Iterable[int]:
        """The positions written to when there are ``count`` inputs."""
        return self.mutates(count) if callable(self.mutates) else self.mutates

    def flops(self, inputs: Sequence[Any], out: Any) -> int:
        """The floating-point operations that computing ``out`` from ``inputs`` takes."""
        if self._flops is not None:
            return self._flops(*inputs, out)
        if self.moves:
            return 0
        return max(int(x.size) for x in (out, *inputs) if hasattr(x, "size"))

    def on(self, device: Backend) -> Callable[..., Any]:
        """The value as a function of the arrays of ``device``."""
        if device is CPU:
            return self.cpu
        if self.cuda is None:
            self.cuda = device.bind(self.value)
        return self.cuda

    def __repr__(self) -> str:
        return f"<primitive {self.name}({', '.join(self.inputs)})>"


#: Arrays beside tensors, of so many bytes, are copied where the tape keeps them: their owner may
#: overwrite them before the backward pass. Of larger ones fresh pages would take longer than most
#: operations do.
OWN_UP_TO = 1 << 16
LEAF = Primitive("leaf", "positive", {})
NO_ATTRS: dict[str, Any] = {}
SCALARS = frozenset({float, int, bool})
NUMBERS = SCALARS | {complex}
# NumPy makes a scalar of a 0-d array.
_ARRAYS = frozenset({ndarray, np.float32, np.float64, np.complex64, np.complex128})


# --- dispatch ---------------------------------------------------------------------------------


def apply(op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any] = NO_ATTRS) -> Any:
    """Run one primitive, and record it on the tape if a gradient may be asked of the result.

    ``inputs`` are tensors, with scalars and arrays among them, and the result is a tensor. Of bare
    arrays, with no tensor among them, the result is a bare array: so the gradient rules, which are
    written with the same functions, run on arrays where nothing has to be recorded.

    Raises ShapeError, DtypeError, DeviceError, before anything is changed.
    """
    if type(inputs[0]) in _ARRAYS:  # a gradient rule at work
        for x in inputs:
            if type(x) not in _ARRAYS and type(x) not in SCALARS:
                break
            if op.slow and type(x) not in SCALARS and x.dtype in op.slow:
                break
        else:
            y = op.eager(*inputs, **attrs)
            return y if op.residual is None else y[0]
    if len(BACKENDS) > 1 and (done := _applied_on_gpu(op, inputs, attrs)) is not None:
        return done
    device: Backend = CPU
    arrays = _prepared_on_cpu(op, inputs)
    fast = arrays is not None
    if arrays is None:
        for x in inputs:
            if isinstance(x, Tensor):
                break
        else:
            bare = next((x for x in inputs if is_array(x) or isinstance(x, np.generic)), None)
            if bare is not None:
                device = BACKENDS.get(type(bare), CPU)
                op = _for_complex(op, inputs)
                y = device.run(op, inputs, attrs)
                return y if op.residual is None else y[0]
        inputs = _prepare(op, inputs)
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        device = _device_of(op, arrays)
        op = _for_complex(op, arrays)
    grad, observers = current_mode()
    if observers and op.mutates:
        for observer in observers:
            observer.overwriting([arrays[i] for i in op.mutated(len(arrays))])
    for observer in observers:
        observer.computing(op)
    try:
        if fast:
            y = (op.cpu if observers else op.eager)(*arrays, **attrs)
        else:
            y = device.run(op, arrays, attrs)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise explained(op, arrays, attrs, error) from error
    if op.residual is not None:
        y, residual = y
        attrs = {**attrs, "r": residual}
    if type(y) not in BACKENDS:  # NumPy makes a scalar of a 0-d array
        y = device.xp.asarray(y)
    out = new_object(Tensor)
    out.data = y
    out.node = None
    if grad and op.has_rules and y.dtype in INEXACT:
        out.node = _recorded(op, inputs, arrays, attrs, y)
    if op.mutates:
        increment_versions([arrays[i] for i in op.mutated(len(arrays))])
    for observer in observers:
        observer.computed(op, inputs, attrs, out)
    return out


def _applied_on_gpu(op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """``apply`` where all inputs but numbers are on one GPU and ready as they are, and nobody
    watches: of one dtype, where it matters, and with no number to be made an array.

    ``None`` where anything about them has to be found out.
    """
    kind: Any = None
    number: Any = None
    dtype: Any = None
    tensors = bare = numbers = False
    arrays: list[Any] = []
    converts, promoted = op.promotion != "any", op.promoted
    known = INEXACT if op.complex is True else FLOATS
    grad, observers = current_mode()
    casts = bool(AUTOCASTS and op.autocast)
    if casts and not observers and isinstance(inputs[0], Tensor):
        if type(inputs[0].data) is ndarray:
            return None
        inputs, casts = [autocast_to(op.autocast, x) for x in inputs], False
    for x in inputs:
        if isinstance(x, Tensor):
            tensors = True
            a = x.data
        elif x is None or type(x) in SCALARS:
            numbers = numbers or x is not None
            arrays.append(x)
            continue
        else:
            bare = True
            a = x
        if type(a) is not kind:
            if kind is not None or type(a) is ndarray or type(a) not in BACKENDS:
                return None
            kind, number = type(a), a.data.device_id
        elif a.data.device_id != number:
            return None
        if converts and a.dtype is not dtype and (promoted is None or len(arrays) in promoted):
            if a.dtype != dtype and (dtype is not None or a.dtype not in known):
                return None
            dtype = a.dtype
        elif known is FLOATS and a.dtype in COMPLEX:
            return None
        arrays.append(a)
    if kind is None or (converts and dtype is None):
        return None
    device: Any = BACKENDS[kind]
    if device.multi_gpu and device.current_number() != number:
        return None
    if not tensors:
        y = device.compute(op, arrays, attrs)
        return y if op.residual is None else y[0]
    if observers or bare or casts or (numbers and dtype in HALVES):
        return None
    try:
        y = device.compute(op, arrays, attrs)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise explained(op, arrays, attrs, error) from error
    if op.residual is not None:
        y, r = y
        attrs = {**attrs, "r": r}
    if type(y) not in BACKENDS:
        y = device.xp.asarray(y)
    out = new_object(Tensor)
    out.data = y
    out.node = None
    if grad and op.has_rules and y.dtype in INEXACT:
        out.node = _recorded(op, inputs, arrays, attrs, y)
    if op.mutates:
        increment_versions([arrays[i] for i in op.mutated(len(arrays))])
    return out


def apply_update(
    op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any], written: int
) -> None:
    """``apply`` for a primitive without rules that overwrites its first ``written`` inputs.

    They are arrays of one device and ``None``. Without an observer there is a fast path: an
    optimizer has many inputs, and nothing about them needs to be found out.
    """
    kind = type(arrays[-1])
    if current_mode().observers or (kind is not ndarray and not _on_one_gpu(arrays)):
        apply(op, [None if a is None else wrap(a, None) for a in arrays], attrs)
        return
    try:
        if kind is ndarray:
            op.cpu(*arrays, **attrs)
        else:
            BACKENDS[kind].run(op, arrays, attrs)
    except ValueError as error:
        raise explained(op, arrays, attrs, error) from error
    increment_versions(arrays[:written])


def _on_one_gpu(arrays: Sequence[Any]) -> bool:
    """Whether all are arrays of one GPU, or ``None``."""
    kind, number = type(arrays[-1]), arrays[-1].data.device_id
    for a in arrays:
        if a is not None and (type(a) is not kind or a.data.device_id != number):
            return False
    return True


def _recorded(
    op: Primitive, inputs: Sequence[Any], arrays: Sequence[Any], attrs: Mapping[str, Any], y: Array
) -> Node | None:
    """The node of ``y``, or ``None`` if no input needs a gradient."""
    env = (y, *arrays)
    edges: list[Edge] = []
    rules: Sequence[Rule | None] = op.rules
    fixed = len(rules)
    if op.variadic:
        fixed -= 1
        rules = (*rules[:fixed], *[rules[fixed]] * (len(inputs) - fixed))
    for i, x in enumerate(inputs):
        rule = rules[i]
        if rule is None or not isinstance(x, Tensor) or x.node is None:
            continue
        if rule.get is not None:
            saved = rule.get(env)
        elif i < fixed:
            saved = rule.pick(env, attrs)
        else:
            saved = rule.pick(env, {**attrs, "index": i - fixed})
        edges.append((rule, saved, x.node))
    if not edges:
        return None
    node = new_object(Node)
    init_node(node, op, tuple(edges), y.shape)
    together = op.together is not None or (op.kernel is not None and type(y) is not ndarray)
    if together or y.dtype in HALVES:
        node.hooks = []  # its rules are computed in float32, or all at once
    return node


def _prepared_on_cpu(op: Primitive, inputs: Sequence[Any]) -> list[Any] | None:
    """The arrays of the inputs, if they are ready as they are: of the CPU and of one wide float.

    That is the fast path around ``_prepare``; ``None`` if it is needed.
    """
    arrays: list[Any] = []
    dtype = None
    tensor = False
    converts, promoted = op.promotion != "any", op.promoted
    refuses = not converts and op.complex is not True
    for x in inputs:
        if isinstance(x, Tensor):
            tensor = True
            a = x.data
            if type(a) is not ndarray:
                return None
            if refuses and a.dtype in COMPLEX:
                return None
            if converts and a.dtype is not dtype and (promoted is None or len(arrays) in promoted):
                if dtype is not None or a.dtype not in WIDE_FLOATS:
                    return None
                dtype = a.dtype
            arrays.append(a)
        elif x is None or type(x) in SCALARS:
            arrays.append(x)
        else:
            return None
    known = dtype is not None or not (converts or op.half_in_float32)
    return arrays if tensor and known and not (AUTOCASTS and op.autocast) else None


def _device_of(op: Primitive, arrays: Sequence[Any]) -> Backend:
    """The device of the first array among ``arrays``, scalars and ``None``."""
    for a in arrays:
        if a is not None and type(a) not in NUMBERS:
            return backend.of(a)
    raise DtypeError(f"{op.name}: a tensor or a number is needed; got None")


def _prepare(op: Primitive, inputs: Sequence[Any]) -> list[Any]:
    """The inputs as tensors of one device and of the dtype that ``op`` computes with.

    Python scalars stay scalars beside a tensor, and take on its dtype.
    """
    if AUTOCASTS and op.autocast:
        inputs = [autocast_to(op.autocast, x) for x in inputs]
    found: list[Any] = []
    first: Any = None
    for x in inputs:
        if isinstance(x, Tensor):
            pass
        elif isinstance(x, np.generic) and not isinstance(x, np.void):
            x = x.item()
        elif x is not None and type(x) not in NUMBERS:
            place = None if first is None else first.device
            if is_array(x):
                place = backend.of(x).device_of(x)
            if isinstance(x, list | tuple):
                x = Tensor._joined(x, place)
            else:
                x = Tensor(x, device=place, copy=_is_saved(op, len(found), x, inputs) or None)
        if isinstance(x, Tensor):
            if first is None:
                first = x
            elif type(x.data) is not type(first.data) or (
                type(x.data) is not ndarray and x.device != first.device
            ):
                raise DeviceError(
                    f"{op.name}: all tensors must be on one device, but one is on {first.device} "
                    f"and another on {x.device}; move one with .to({first.device!r})"
                )
        found.append(x)
    if op.promotion != "any" or first is None:
        _promote(op, found, None if first is None else first.device)
    return found


def _is_saved(op: Primitive, place: int, x: Any, inputs: Sequence[Any]) -> bool:
    """Whether the input ``x`` at a place, an array, is to be copied, as the tape will keep it."""
    if getattr(x, "nbytes", 0) > OWN_UP_TO:
        return False
    if op.kept is None:
        op.kept = frozenset(name for rule in op.rules if rule is not None for name in rule.names)
    if op.inputs[min(place, len(op.inputs) - 1)].removeprefix("*") not in op.kept:
        return False
    for other in inputs:
        if isinstance(other, Tensor) and other.node is not None:
            return current_mode().grad
    return False


def _promote(op: Primitive, found: list[Any], device: str | None) -> None:
    """Convert the inputs ``found`` to the dtype that ``op`` computes with, in place.

    device: that of the tensors among them, if there are any.
    """
    promoted = [
        i for i, x in enumerate(found)
        if x is not None and (op.promoted is None or i in op.promoted)
    ]  # fmt: skip
    tensors = [i for i in promoted if isinstance(found[i], Tensor)]
    scalars = [i for i in promoted if not isinstance(found[i], Tensor)]
    common = dtypes.promote([found[i].data.dtype for i in tensors], [found[i] for i in scalars])
    if op.promotion == "float" and common not in INEXACT:
        common = dtypes.get_default_dtype()
    if common in COMPLEX and not op.complex:
        raise not_for_complex(op.name, op.promotion == "bool")
    for i in tensors:
        if found[i].data.dtype != common:
            found[i] = cast(found[i], common)
    # NumPy gives bfloat16 * 2.0 as float32: there a scalar must take on the dtype beforehand.
    if not tensors or common in HALVES:
        for i in scalars:
            found[i] = Tensor(found[i], dtype=common, device=device)


def _for_complex(op: Primitive, arrays: Sequence[Any]) -> Primitive:
    """``op``, or what takes its place if there are complex numbers among ``arrays``.

    Raises DtypeError if it is not for them.
    """
    if op.complex is True:
        return op
    for a in arrays:
        if type(a) is complex or getattr(a, "dtype", None) in COMPLEX:
            if not op.complex:
                raise not_for_complex(op.name, op.promotion == "bool")
            return op.complex
    return op


def not_for_complex(name: str, ordered: bool = False) -> DtypeError:
    """The error for complex numbers given to what is not for them."""
    reason = ", which have no order" if ordered else ""
    return DtypeError(
        f"{name} is not for complex numbers{reason}; take abs(x), tg.real(x) or tg.imag(x)"
    )


def autocast_to(policy: str, x: Any) -> Any:
    """``x``, a float tensor as ``policy`` has it inside ``autocast``; see Primitive.

    Numbers and arrays stay as they are: those of gradient rules have the dtype they need.
    """
    half = AUTOCAST_DTYPE.get()
    if half is None or not isinstance(x, Tensor):
        return x
    if policy == "half":
        return cast(x, half) if x.data.dtype == float32 else x
    return cast(x, float32) if x.data.dtype in HALVES else x


def wrap(array: Array, node: Node | None) -> Tensor:
    """A tensor around ``array``, without copying it."""
    out = new_object(Tensor)
    out.data = array if type(array) in BACKENDS else asarray(array)
    out.node = node
    return out


# --- the operation that dispatch itself needs -----------------------------------------------------


def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """``x`` with another dtype; the gradient is cast back."""
    return apply(CAST, (x,), {"dtype": dtype})


def _cast_value(xp: Any, x: Array, dtype: np.dtype[Any]) -> Array:
    if x.dtype.kind == "c" and dtype.kind != "c":
        raise DtypeError(
            f"astype: {x.dtype} does not become {dtype} by itself; take tg.real(x), tg.imag(x) or "
            "abs(x) first"
        )
    return x.astype(dtype)


def _cast_rule(g: Any, x_dtype: np.dtype[Any]) -> Any:
    # Here real numbers meet complex gradients, of which they get the real part.
    return cast(g if x_dtype in COMPLEX else real_part(g), x_dtype)


CAST = Primitive("astype", _cast_value, {"x": _cast_rule}, elementwise=True, moves=True)


def real_part(x: Any) -> Any:
    """The real part of complex numbers, in memory of theirs; anything else as it is."""
    return apply(REAL, (x,)) if x.dtype in COMPLEX else x


REAL = Primitive(
    "real", lambda xp, x: x.real, {"x": lambda g, x_dtype: cast(g, x_dtype)}, elementwise=True,
    moves=True, fresh=False,
)  # fmt: skip
new_object = object.__new__
if not TYPE_CHECKING:
    Tensor: Any = None  # set by tensor.py: the class needs the operations, and they need this file
