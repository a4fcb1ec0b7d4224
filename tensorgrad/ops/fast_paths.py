"""Fast paths through dispatch: functions that apply one primitive to NumPy floats of one dtype.

Where no observer is at work they give what ``tape.apply`` gives, in half the time for a chain of
small operations; anything else they pass on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from numpy import asarray, ndarray

from tensorgrad.dtypes import WIDE_FLOATS
from tensorgrad.errors import explained
from tensorgrad.observers import AUTOCASTS, current_mode
from tensorgrad.ops.numbers import constant
from tensorgrad.tape import NO_ATTRS, SCALARS, Node, Primitive, apply, init_node, new_object

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor
else:
    Tensor: Any = None  # set by tensor.py: the class needs the operations, and they need this file


def unary(op: Primitive) -> Callable[[Any], Any]:
    """A function of one argument that applies ``op``."""
    rule: Any = op.rules[0]  # a Rule, where nodes are made
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
                compute = op.eager  # a method call of a slot would take longer
                y = compute(a)
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
                    out.node = made = new_object(Node)
                    init_node(made, op, ((rule, saved, node),), y.shape)
                return out
        elif type(x) is ndarray and x.dtype in WIDE_FLOATS:
            compute = op.eager
            return compute(x)
        return apply(op, (x,), NO_ATTRS)

    return call


def unary_with_labels(op: Primitive) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    """A function of a tensor, of labels without a gradient, and of attributes."""
    rule = op.rules[0]
    assert rule is not None, "the first input must have a gradient rule"
    get, pick = rule.get, rule.pick
    residual = op.residual is not None
    autocast = op.autocast

    def call(x: Any, labels: Any, attrs: Mapping[str, Any], /) -> Any:
        a, b = x.data, labels.data
        grad, observers = current_mode()
        if (
            not type(a) is ndarray is type(b)
            or a.dtype not in WIDE_FLOATS
            or observers
            or (autocast and AUTOCASTS)
        ):
            return apply(op, (x, labels), attrs)
        compute = op.eager
        try:
            y = compute(a, b, **attrs)
        except (ValueError, IndexError) as error:
            raise explained(op, (a, b), attrs, error) from error
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
            out.node = made = new_object(Node)
            init_node(made, op, ((rule, saved, node),), y.shape)
        return out

    return call


def binary(op: Primitive) -> Callable[[Any, Any], Any]:
    """A function of two arguments that applies ``op``."""
    rule1, rule2 = op.rules
    assert (rule1 is None) is (rule2 is None), "give both inputs a gradient rule, or neither"
    pick1: Any = None if rule1 is None else rule1.get
    pick2: Any = None if rule2 is None else rule2.get
    one1 = None if rule1 is None else rule1.one if rule1.names else -1
    autocast = op.autocast

    def call(x1: Any, x2: Any, /) -> Any:
        node1 = node2 = None
        if isinstance(x1, Tensor):
            a = x1.data
            dtype = a.dtype
            node1 = x1.node
            if isinstance(x2, Tensor):
                b = x2.data
                node2 = x2.node
                fast = type(a) is ndarray is type(b) and b.dtype is dtype
            else:
                fast = type(a) is ndarray and type(x2) in SCALARS and dtype in WIDE_FLOATS
                b = constant(x2, dtype) if fast and x2 else x2
        elif isinstance(x2, Tensor):
            b = x2.data
            dtype = b.dtype
            node2 = x2.node
            fast = type(b) is ndarray and type(x1) in SCALARS and dtype in WIDE_FLOATS
            a = constant(x1, dtype) if fast and x1 else x1
        elif type(x1) is ndarray is type(x2) and x1.dtype in WIDE_FLOATS and x2.dtype is x1.dtype:
            compute = op.eager
            return compute(x1, x2)
        else:
            return apply(op, (x1, x2), NO_ATTRS)
        grad, observers = current_mode()
        if not fast or observers or dtype not in WIDE_FLOATS or (autocast and AUTOCASTS):
            return apply(op, (x1, x2), NO_ATTRS)
        compute = op.eager
        try:
            y = compute(a, b)
        except ValueError as error:
            raise explained(op, (a, b), NO_ATTRS, error) from error
        out = new_object(Tensor)
        out.data = y = y if type(y) is ndarray else asarray(y)
        if not grad or (node1 is None and node2 is None) or rule1 is None:
            out.node = None
            return out
        if node2 is None and one1 == 2:  # the commonest cases written out are quicker
            edges: Any = ((rule1, (b,), node1),)
        elif node2 is None and one1 == -1:
            edges = ((rule1, (), node1),)
        elif node2 is None:
            edges = ((rule1, pick1((y, a, b)), node1),)
        elif node1 is None:
            edges = ((rule2, pick2((y, a, b)), node2),)
        else:
            env = (y, a, b)
            edges = ((rule1, pick1(env), node1), (rule2, pick2(env), node2))
        out.node = made = new_object(Node)
        init_node(made, op, edges, y.shape)
        return out

    return call


def ternary(op: Primitive) -> Callable[[Any, Any, Any], Any]:
    """A function of three tensors that applies ``op``.

    The first may be one that takes no part in the conversion of types and has no gradient rule.
    """
    converts = op.promoted is None
    autocast = op.autocast
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
            or (converts and a.dtype is not dtype)
            or dtype not in WIDE_FLOATS
            or observers
            or (autocast and AUTOCASTS)
        ):
            return apply(op, (x1, x2, x3), NO_ATTRS)
        compute = op.eager
        try:
            y = compute(a, b, c)
        except ValueError as error:
            raise explained(op, (a, b, c), NO_ATTRS, error) from error
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
                out.node = made = new_object(Node)
                init_node(made, op, edges, y.shape)
        return out

    return call
