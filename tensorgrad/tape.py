"""The tape: the seam that every array computation passes through.

``apply`` runs a primitive on tensors and, where a gradient will be wanted, enters it on the tape;
``replay`` (replay.py) visits the entries in descending position and applies the gradient rules.

The tape is not a list that somebody has to clear. An entry (``Node``) is referred to by the tensor
it produced and by the entries computed from that tensor, so it dies with the last of them, by
reference counting alone. What makes these entries a tape is their position: a number that only
grows. Replaying in descending position needs neither sorting nor recursion, since whatever used a
value has a higher position than the value itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from itertools import count
from operator import itemgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import asarray, ndarray

from tensorgrad import backend, dtypes
from tensorgrad.backend import is_array
from tensorgrad.backend.base import Backend, Value
from tensorgrad.backend.cpu import CPU
from tensorgrad.backend.sums import column_sums, total
from tensorgrad.dtypes import FLOATS, HALVES, WIDE_FLOATS
from tensorgrad.errors import DeviceError, DtypeError, ShapeError
from tensorgrad.turns import Turns

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

Array = Any  # np.ndarray or cupy.ndarray

# The next tape position. Positions are counted downwards so that a heap yields the latest first.
_next_position = count(0, -1).__next__


# --- modes ------------------------------------------------------------------------------------


class Observer:
    """Sees every computation that passes the seam: the anomaly check, a recorder, a profiler."""

    #: whether gradient rules must pass the seam too, operation by operation
    records = False

    def computed(
        self, op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Tensor
    ) -> None:
        """Called after ``op`` gave ``out`` from ``inputs`` (tensors and scalars)."""

    def computing(self, op: Primitive) -> None:
        """Called before ``op`` computes."""

    def differentiating(self, node: Node) -> None:
        """Called in reverse replay before a rule of ``node`` computes."""

    def differentiated(
        self, node: Node, rule: Rule, saved: Sequence[Any], g: Any, gradient: Any
    ) -> None:
        """Called in reverse replay after ``rule`` of ``node`` gave ``gradient`` from ``g``."""

    def overwriting(self, arrays: Sequence[Any]) -> None:
        """Called before an operation overwrites ``arrays``."""

    def created(self, tensor: Tensor, source: Any) -> None:
        """Called after ``tensor`` was made from ``source``; ``None`` where it was filled."""

    def read(self, tensor: Tensor, how: str) -> None:
        """Called before Python gets to see the numbers in ``tensor``."""

    def drew(self, generator: Any, words: int) -> None:
        """Called before ``words`` random words are drawn from ``generator``."""

    def seeded(self, generator: Any) -> None:
        """Called before ``generator`` starts again from a seed."""

    def updating(self, optimizer: Any, number: int, bundle: int) -> None:
        """Called before an optimizer updates a bundle of its group ``number``."""

    def entered(self, module: Any) -> None:
        """Called before a module is called, while somebody is in ``RECORDING``."""

    def left(self, module: Any) -> None:
        """Called after a module was called, however it ended; see ``entered``."""

    def changed_gradient(self, leaf: Leaf, cleared: bool) -> None:
        """Called before the ``.grad`` of ``leaf`` is replaced (``cleared``) or added to."""

    def looked_at_gradient(self, leaf: Leaf) -> None:
        """Called when somebody asks for the ``.grad`` of ``leaf``, while a program is captured."""


class Mode(NamedTuple):
    """What the seam does besides computing. Each thread and each asyncio task has its own."""

    grad: bool = True
    observers: tuple[Observer, ...] = ()


# The recorders at work, of any thread: empty, it says at little cost that nobody is to be told.
RECORDING: list[Observer] = []


def is_captured() -> bool:
    """Whether what this thread does is being captured for a program."""
    return any(observer in RECORDING for observer in current_mode().observers)


MODE: ContextVar[Mode] = ContextVar("tensorgrad mode", default=Mode())  # noqa: B039 (immutable)
current_mode = MODE.get


# --- the entries ------------------------------------------------------------------------------


class Rule:
    """How the gradient of a primitive's output becomes that of its input number ``index``.

    ``function(g, ...)`` says by its parameter names what it needs besides the incoming gradient
    ``g``: ``y`` (the output), an input by name, ``<input>_shape``, or an attribute by name.
    Exactly that is saved.
    """

    __slots__ = ("function", "get", "index", "keeps_shape", "names", "one", "pick")

    def __init__(self, function: Callable[..., Any], index: int, inputs: Sequence[str]) -> None:
        self.function = function
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


class Node:
    """A tape entry: one computed tensor, and an edge to each input that needs a gradient.

    An edge is ``(rule, saved values, entry of the input)``. ``edges`` is ``None`` once a backward
    pass has used the entry up.
    """

    __slots__ = ("edges", "grad", "hooks", "keeps_grad", "op", "position", "shape", "where")

    grad: Tensor | None  # unset until there is one, as keeps_grad and where
    keeps_grad: bool
    where: str

    def __init__(self, op: Primitive, edges: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.position = _next_position()
        self.op = op
        self.edges: tuple[Any, ...] | None = edges
        self.shape = shape
        #: a list, even if it is empty, makes the replay look closely at the entry
        self.hooks: list[Callable[[Tensor], Tensor | None]] | None = None


class Leaf(Node):
    """The tape entry of a tensor that the user made with ``requires_grad=True``.

    It holds the tensor's ``.grad``, and not the tensor, so that no reference cycle arises.
    """

    __slots__ = ("dtype", "turns")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(LEAF, (), shape)
        self.dtype = dtype
        self.grad = None
        #: whose turn it is, where programs change the gradient besides; see ``turns.py``
        self.turns: Turns | None = None


class Deferred(Node):
    """An entry that stands for a part of the tape which ``expand`` recomputes when needed.

    ``expand(gradient, retain)`` gives pairs of an entry and the gradient that reaches it.
    """

    __slots__ = ()

    def __init__(self, op: Primitive, edges: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        super().__init__(op, edges, shape)
        self.hooks = []

    def expand(self, gradient: Any, retain: bool) -> Iterable[tuple[Node, Any]]:
        """The entries that take this one's place, each with its gradient."""
        raise NotImplementedError


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
    kernel: the name under which backend/launch has hand-written CUDA kernels for the value, for
        all gradients at once, or for both. The value and the rules above remain the definition.
    together: ``together(g, needed, saved)`` gives the gradients of all inputs at once, for rules
        that would do the same work over; see ``Backend.gradients``. The rules are for where they
        are recorded themselves.
    """

    __slots__ = (
        "_cuda",
        "cpu",
        "explain",
        "half_in_float32",
        "has_rules",
        "inputs",
        "kernel",
        "mutates",
        "name",
        "promoted",
        "promotion",
        "residual",
        "rules",
        "together",
        "value",
        "variadic",
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
        kernel: str | None = None,
        together: Callable[..., Sequence[Any]] | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.inputs = tuple(rules)
        self.variadic = any(name.startswith("*") for name in self.inputs)
        self.rules = tuple(
            None if rule is None else Rule(rule, i, self.inputs)
            for i, rule in enumerate(rules.values())
        )
        self.has_rules = any(rule is not None for rule in self.rules)
        self.promotion = promotion
        self.promoted = promoted
        self.half_in_float32 = half_in_float32
        self.mutates = mutates
        self.explain = explain
        self.residual = residual
        self.kernel = kernel
        self.together = together
        self.cpu = CPU.bind(value)
        self._cuda: Callable[..., Any] | None = None

    def mutated(self, count: int) -> Iterable[int]:
        """The positions written to when there are ``count`` inputs."""
        return self.mutates(count) if callable(self.mutates) else self.mutates

    def on(self, device: Backend) -> Callable[..., Any]:
        """The value as a function of the arrays of ``device``."""
        if device is CPU:
            return self.cpu
        if self._cuda is None:
            self._cuda = device.bind(self.value)
        return self._cuda

    def __repr__(self) -> str:
        return f"<primitive {self.name}({', '.join(self.inputs)})>"


LEAF = Primitive("leaf", "positive", {})
NO_ATTRS: dict[str, Any] = {}
_SCALARS = frozenset({float, int, bool})


# --- the seam ---------------------------------------------------------------------------------


def apply(op: Primitive, inputs: Sequence[Any], attrs: Mapping[str, Any] = NO_ATTRS) -> Any:
    """Run one primitive, and enter it on the tape if a gradient may be asked of the result.

    ``inputs`` are tensors, with scalars and arrays among them, and the result is a tensor. Of bare
    arrays, with no tensor among them, the result is a bare array: so the gradient rules, which are
    written with the same functions, run on arrays where nothing has to be recorded.

    Raises ShapeError, DtypeError, DeviceError, before anything is changed.
    """
    if type(inputs[0]) is ndarray:  # a gradient rule at work
        for x in inputs:
            if type(x) is not ndarray and type(x) not in _SCALARS:
                break
            if op.half_in_float32 and type(x) is ndarray and x.dtype in HALVES:
                break
        else:
            y = op.cpu(*inputs, **attrs)
            return y if op.residual is None else y[0]
    arrays: list[Any] = []
    dtype = None
    tensor = False
    converts, typed = op.promotion != "any", op.promoted
    for x in inputs:
        if isinstance(x, Tensor):
            tensor = True
            a = x.data
            if type(a) is not ndarray:
                break
            if converts and a.dtype is not dtype and (typed is None or len(arrays) in typed):
                if dtype is not None or a.dtype not in WIDE_FLOATS:
                    break
                dtype = a.dtype
            arrays.append(a)
        elif x is None or type(x) in _SCALARS:
            arrays.append(x)
        else:
            break
    device: Backend = CPU
    known = dtype is not None or not (converts or op.half_in_float32)
    usual = tensor and len(arrays) == len(inputs) and known
    if not usual:
        if not tensor and not any(isinstance(x, Tensor) for x in inputs):
            bare = next((x for x in inputs if is_array(x) or isinstance(x, np.generic)), None)
            if bare is not None:
                device = backend.BACKENDS.get(type(bare), CPU)
                y = device.run(op, inputs, attrs)
                return y if op.residual is None else y[0]
        inputs = _prepare(op, inputs)
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        found = [a for a in arrays if a is not None and type(a) not in _SCALARS]
        if not found:
            raise DtypeError(f"{op.name}: a tensor or a number is needed; got None")
        device = backend.of(found[0])
    grad, observers = current_mode()
    if observers and op.mutates:
        for observer in observers:
            observer.overwriting([arrays[i] for i in op.mutated(len(arrays))])
    for observer in observers:
        observer.computing(op)
    try:
        if usual:
            y = op.cpu(*arrays, **attrs)
        else:
            y = device.run(op, arrays, attrs)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise _explained(op, arrays, attrs, error) from error
    if op.residual is not None:
        y, residual = y
        attrs = {**attrs, "r": residual}
    if type(y) is not ndarray and not is_array(y):  # NumPy makes a scalar of a 0-d array
        y = device.xp.asarray(y)
    out = new_object(Tensor)
    out.data = y
    out.node = None
    if grad and op.has_rules and y.dtype in FLOATS:
        out.node = _entry(op, inputs, arrays, attrs, y)
    if op.mutates:
        numbers = op.mutated(len(arrays))
        note_overwritten([arrays[i] for i in numbers])
    for observer in observers:
        observer.computed(op, inputs, attrs, out)
    return out


def apply_update(
    op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any], written: int
) -> None:
    """``apply`` for a primitive without rules that overwrites its first ``written`` inputs.

    They are arrays of one device and ``None``. The usual case, on the CPU without an observer,
    takes a short way: an optimizer has many inputs, and nothing about them needs to be found out.
    """
    if type(arrays[-1]) is not ndarray or current_mode().observers:
        apply(op, [None if a is None else wrap(a, None) for a in arrays], attrs)
        return
    try:
        op.cpu(*arrays, **attrs)
    except ValueError as error:
        raise _explained(op, arrays, attrs, error) from error
    note_overwritten(arrays[:written])


def _entry(
    op: Primitive, inputs: Sequence[Any], arrays: Sequence[Any], attrs: Mapping[str, Any], y: Array
) -> Node | None:
    """The tape entry of ``y``, or ``None`` if no input needs a gradient."""
    env = (y, *arrays)
    edges = []
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
    node = Node(op, tuple(edges), y.shape)
    together = op.together is not None or (op.kernel is not None and type(y) is not ndarray)
    if together or y.dtype in HALVES:
        node.hooks = []  # its rules are computed in float32, or all at once
    return node


def unary(op: Primitive) -> Callable[[Any], Any]:
    """A function of one argument that applies ``op``: the short way for the usual case.

    The usual case is a tensor of NumPy floats and no observer; anything else goes to ``apply``,
    which gives the same result. ``binary`` does the same for two arguments. A chain of small
    operations takes half the time for it.
    """
    cpu = op.cpu
    (rule,) = op.rules
    pick = None if rule is None else rule.get
    saves = rule is not None and bool(rule.names)
    one = None if rule is None else rule.one
    if rule is not None:
        rule.keeps_shape = True

    def call(x: Any, /) -> Any:
        if isinstance(x, Tensor):
            a = x.data
            grad, observers = current_mode()
            if type(a) is ndarray and a.dtype in WIDE_FLOATS and not observers:
                y = cpu(a)
                if type(y) is not ndarray:
                    y = asarray(y)
                out = new_object(Tensor)
                out.data = y
                node = x.node
                if node is None or pick is None or not grad:
                    out.node = None
                else:
                    if one is None:
                        saved = pick((y, a)) if saves else ()
                    else:  # a tuple written out is quicker
                        saved = (a,) if one else (y,)
                    out.node = entry = new_object(Node)  # Node(...) written out: it is quicker
                    entry.position = _next_position()
                    entry.op = op
                    entry.edges = ((rule, saved, node),)
                    entry.shape = y.shape
                    entry.hooks = None
                return out
        elif type(x) is ndarray and x.dtype in WIDE_FLOATS:
            return cpu(x)
        return apply(op, (x,), NO_ATTRS)

    return call


def unary_with_labels(op: Primitive) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    """A function of a tensor, of labels without a gradient, and of attributes; see ``unary``."""
    cpu = op.cpu
    rule = op.rules[0]
    assert rule is not None, "the first input must have a gradient rule"
    get, pick = rule.get, rule.pick
    residual = op.residual is not None

    def call(x: Any, labels: Any, attrs: Mapping[str, Any], /) -> Any:
        a, b = x.data, labels.data
        grad, observers = current_mode()
        if not type(a) is ndarray is type(b) or a.dtype not in WIDE_FLOATS or observers:
            return apply(op, (x, labels), attrs)
        try:
            y = cpu(a, b, **attrs)
        except (ValueError, IndexError) as error:
            raise _explained(op, (a, b), attrs, error) from error
        if residual:
            y, r = y
            attrs = {**attrs, "r": r}
        out = new_object(Tensor)
        out.data = y = y if type(y) is ndarray else asarray(y)
        node = x.node
        if node is None or not grad:
            out.node = None
        else:
            saved = pick((y, a, b), attrs) if get is None else get((y, a, b))
            out.node = entry = new_object(Node)
            entry.position = _next_position()
            entry.op = op
            entry.edges = ((rule, saved, node),)
            entry.shape = y.shape
            entry.hooks = None
        return out

    return call


def binary(op: Primitive) -> Callable[[Any, Any], Any]:
    """A function of two arguments that applies ``op``; see ``unary``."""
    cpu = op.cpu
    rule1, rule2 = op.rules
    assert (rule1 is None) is (rule2 is None), "give both inputs a gradient rule, or neither"
    pick1: Any = None if rule1 is None else rule1.get
    pick2: Any = None if rule2 is None else rule2.get
    one1 = None if rule1 is None else rule1.one if rule1.names else -1
    has_rules = op.has_rules

    def call(x1: Any, x2: Any, /) -> Any:
        node1 = node2 = None
        if isinstance(x1, Tensor):
            a = x1.data
            dtype = a.dtype
            node1 = x1.node
            if isinstance(x2, Tensor):
                b = x2.data
                node2 = x2.node
                usual = type(a) is ndarray is type(b) and b.dtype is dtype
            else:
                usual = type(a) is ndarray and type(x2) in _SCALARS and dtype in WIDE_FLOATS
                b = constant(x2, dtype) if usual and x2 else x2
        elif isinstance(x2, Tensor):
            b = x2.data
            dtype = b.dtype
            node2 = x2.node
            usual = type(b) is ndarray and type(x1) in _SCALARS and dtype in WIDE_FLOATS
            a = constant(x1, dtype) if usual and x1 else x1
        elif type(x1) is ndarray is type(x2) and x1.dtype in WIDE_FLOATS and x2.dtype is x1.dtype:
            return cpu(x1, x2)
        else:
            return apply(op, (x1, x2), NO_ATTRS)
        grad, observers = current_mode()
        if not usual or observers or dtype not in WIDE_FLOATS:
            return apply(op, (x1, x2), NO_ATTRS)
        try:
            y = cpu(a, b)
        except ValueError as error:
            raise _explained(op, (a, b), NO_ATTRS, error) from error
        if type(y) is not ndarray:
            y = asarray(y)
        out = new_object(Tensor)
        out.data = y
        if not grad or (node1 is None and node2 is None) or not has_rules:
            out.node = None
            return out
        edges: tuple[Any, ...]
        if node2 is None and one1 == 2:  # the usual cases written out are quicker
            edges = ((rule1, (b,), node1),)
        elif node2 is None and one1 == -1:
            edges = ((rule1, (), node1),)
        else:
            env = (y, a, b)
            if node1 is None:
                edges = ((rule2, pick2(env), node2),)
            elif node2 is None:
                edges = ((rule1, pick1(env), node1),)
            else:
                edges = ((rule1, pick1(env), node1), (rule2, pick2(env), node2))
        out.node = entry = new_object(Node)
        entry.position = _next_position()
        entry.op = op
        entry.edges = edges
        entry.shape = y.shape
        entry.hooks = None
        return out

    return call


def ternary(op: Primitive) -> Callable[[Any, Any, Any], Any]:
    """A function of three tensors that applies ``op``; see ``unary``.

    The first may be one that takes no part in the conversion of types and has no gradient rule.
    """
    cpu = op.cpu
    typed = op.promoted is None
    rule1, rule2, rule3 = op.rules
    pick1: Any = None if rule1 is None else rule1.get
    pick2: Any = None if rule2 is None else rule2.get
    pick3: Any = None if rule3 is None else rule3.get

    def call(x1: Any, x2: Any, x3: Any, /) -> Any:
        if not (isinstance(x1, Tensor) and isinstance(x2, Tensor) and isinstance(x3, Tensor)):
            return apply(op, (x1, x2, x3), NO_ATTRS)
        a, b, c = x1.data, x2.data, x3.data
        dtype = b.dtype
        grad, observers = current_mode()
        if (
            not type(a) is ndarray is type(b) is type(c)
            or c.dtype is not dtype
            or (typed and a.dtype is not dtype)
            or dtype not in WIDE_FLOATS
            or observers
        ):
            return apply(op, (x1, x2, x3), NO_ATTRS)
        try:
            y = cpu(a, b, c)
        except ValueError as error:
            raise _explained(op, (a, b, c), NO_ATTRS, error) from error
        if type(y) is not ndarray:
            y = asarray(y)
        out = new_object(Tensor)
        out.data = y
        out.node = None
        if grad:
            env = (y, a, b, c)
            edges: tuple[Any, ...] = ()
            if pick1 is not None and (node := x1.node) is not None:
                edges = ((rule1, pick1(env), node),)
            if (node := x2.node) is not None:
                edges += ((rule2, pick2(env), node),)
            if (node := x3.node) is not None:
                edges += ((rule3, pick3(env), node),)
            if edges:
                out.node = entry = new_object(Node)
                entry.position = _next_position()
                entry.op = op
                entry.edges = edges
                entry.shape = y.shape
                entry.hooks = None
        return out

    return call


@lru_cache(maxsize=1024)
def constant(value: float, dtype: np.dtype[Any]) -> ndarray[Any, Any]:
    """``value`` as a 0-d NumPy array, which a ufunc takes in half the time of a Python number.

    Not for zeros: 0.0 and -0.0 would be one entry. The array is read-only, being shared.
    """
    found = asarray(value, dtype)
    found.flags.writeable = False
    return found


def _prepare(op: Primitive, inputs: Sequence[Any]) -> list[Any]:
    """The inputs as tensors of one device and of the dtype that ``op`` computes with.

    Python scalars stay scalars beside a tensor, and take on its dtype.
    """
    found: list[Any] = []
    first: Any = None
    for x in inputs:
        if isinstance(x, Tensor):
            pass
        elif isinstance(x, np.generic) and not isinstance(x, np.void):
            x = x.item()
        elif x is not None and type(x) not in _SCALARS:
            place = None if first is None else first.device
            if is_array(x):
                place = backend.of(x).device_of(x)
            if isinstance(x, list | tuple):
                x = Tensor._joined(x, place)
            else:
                x = Tensor(x, device=place, copy=None)
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
        typed = [
            i for i, x in enumerate(found)
            if x is not None and (op.promoted is None or i in op.promoted)
        ]  # fmt: skip
        tensors = [i for i in typed if isinstance(found[i], Tensor)]
        common = dtypes.promote(
            [found[i].data.dtype for i in tensors],
            [found[i] for i in typed if not isinstance(found[i], Tensor)],
        )
        if op.promotion == "float" and common not in FLOATS:
            common = dtypes.get_default_dtype()
        for i in tensors:
            if found[i].data.dtype != common:
                found[i] = cast(found[i], common)
        if first is None or not tensors:
            for i in typed:
                found[i] = Tensor(
                    found[i], dtype=common, device=None if first is None else first.device
                )
        elif common in HALVES:
            # NumPy gives bfloat16 * 2.0 as float32: a scalar must take on the type beforehand.
            for i in typed:
                if not isinstance(found[i], Tensor):
                    found[i] = Tensor(found[i], dtype=common, device=first.device)
    return found


def _explained(
    op: Primitive, arrays: Sequence[Any], attrs: Mapping[str, Any], error: Exception
) -> Exception:
    """The error that a user should see in place of ``error`` from NumPy or CuPy."""
    if isinstance(error, ShapeError | DtypeError | DeviceError):
        return error
    if isinstance(error, ValueError) and "read-only" in str(error):
        return ValueError(
            f"{op.name}: the memory of a tensor that is to be overwritten is read-only, since it "
            "shares that of a broadcast, mapped or protected array; overwrite x.clone() instead, "
            "or make the tensor with copy=True"
        )
    if isinstance(error, TypeError | AttributeError) and any(a is None for a in arrays):
        return DtypeError(f"{op.name}: a tensor or a number is needed; got None")
    if isinstance(error, AttributeError):
        return error
    if isinstance(error, OverflowError):
        return OverflowError(f"{op.name}: {error}; convert the tensor with .astype(...) first")
    shapes = [a.shape for a in arrays if hasattr(a, "shape")]
    got = " and ".join(str(s) for s in shapes)
    reason = ""
    if op.explain is not None:
        reason = op.explain(*shapes, **attrs)
    elif isinstance(error, ValueError) and op.promotion != "any" and len(shapes) > 1:
        reason = (
            "the shapes must broadcast: counted from the last axis, two sizes are equal or one "
            "of them is 1"
        )
    if isinstance(error, IndexError):
        return IndexError(f"{op.name}: {error}; got {got}")
    options = ", ".join(f"{k}={v!r}" for k, v in attrs.items())
    text = f"{op.name}: {reason or error}; got {got or 'no array'}"
    if options and not reason:
        text += f" with {options}"
    if isinstance(error, TypeError):
        kinds = ", ".join(str(a.dtype) for a in arrays if hasattr(a, "dtype"))
        return DtypeError(f"{text} of dtype {kinds}")
    return ShapeError(text)


# --- values overwritten in place ----------------------------------------------------------------

# id of the owner of some memory -> [tape position when it was last overwritten, weak reference].
# Whether a saved value was overwritten after it was saved is a comparison of positions, so that
# saving costs nothing and only those who overwrite pay.
OVERWRITTEN: dict[int, list[Any]] = {}

# When anything was last overwritten. Entries made since then need not be looked at: in training,
# where every step ends with overwriting the parameters, that is all of them.
LAST_OVERWRITE = 0


def note_overwritten(arrays: Iterable[Array | None]) -> None:
    """Remember that the memory of ``arrays`` has just been written to; ``None`` is passed over."""
    global LAST_OVERWRITE
    LAST_OVERWRITE = now = _next_position()
    for array in arrays:
        if array is None:
            continue
        owner = array
        if type(array) is not ndarray or array.base is not None:
            owner = backend.of(array).memory_owner(array)
        key = id(owner)
        entry = OVERWRITTEN.get(key)
        if entry is not None:
            entry[0] = now
        else:
            OVERWRITTEN[key] = [now, weakref.ref(owner, partial(_forget, key))]


def _forget(key: int, _: Any) -> None:
    OVERWRITTEN.pop(key, None)


def was_overwritten(array: Array, position: int) -> bool:
    """Whether the memory of ``array`` was noted as overwritten after ``position``."""
    entry = OVERWRITTEN.get(id(backend.of(array).memory_owner(array)))
    return entry is not None and entry[0] < position


def wrap(array: Array, node: Node | None) -> Tensor:
    """A tensor around ``array``, without copying it."""
    out = new_object(Tensor)
    out.data = array if type(array) is ndarray or is_array(array) else asarray(array)
    out.node = node
    return out


# --- the three operations the engine itself needs -------------------------------------------------


def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """``x`` with another dtype; the gradient is cast back."""
    return apply(CAST, (x,), {"dtype": dtype})


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """``x`` repeated along new and size-1 axes until it has ``shape``."""
    return apply(BROADCAST_TO, (x,), {"shape": shape})


def unbroadcast(d: Any, shape: tuple[int, ...]) -> Any:
    """``d`` summed over the axes along which a value of ``shape`` was repeated to give its shape.

    Gradient rules contain no shape code: the engine calls this on whatever they return.
    """
    if d.shape == shape:
        return d
    if type(d) is ndarray and d.dtype in WIDE_FLOATS:
        return _sum_to_value(np, d, shape)
    return apply(SUM_TO, (d,), {"shape": shape})


def _cast_value(xp: Any, x: Array, dtype: np.dtype[Any]) -> Array:
    return x.astype(dtype)


def _broadcast_value(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    return xp.broadcast_to(x, shape)


def _sum_to_value(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    if xp is np and x.ndim == 2 and x.shape[1:] == shape:  # the gradient of a bias
        return column_sums(x)
    extra = x.ndim - len(shape)
    kept = x.shape[extra:]
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 != kept[i]))
    return total(xp, x, axes).reshape(shape)


CAST = Primitive("astype", _cast_value, {"x": lambda g, x_dtype: cast(g, x_dtype)})
BROADCAST_TO = Primitive(
    "broadcast_to",
    _broadcast_value,
    {"x": lambda g, x_shape: unbroadcast(g, x_shape)},
    explain=lambda shape_in, shape: (
        f"only axes of size 1 and new leading axes can be repeated to get shape {tuple(shape)}"
    ),
)
SUM_TO = Primitive(
    "sum_to",
    _sum_to_value,
    {"x": lambda g, x_shape: broadcast_to(g, x_shape)},
    promotion="same",
    half_in_float32=True,
)

new_object = object.__new__
if not TYPE_CHECKING:
    Tensor: Any = None  # set by tensor.py: the class needs the operations, and they need this file
