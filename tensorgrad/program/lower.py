"""From primitives to loops: what each primitive does to single numbers, in C expressions.

A row here is a function that writes a primitive with maps, reductions and products, or nothing at
all: then the primitive runs as a call. So a new primitive works in every program at once, and gets
faster when it is given a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend.sums import least_squares
from tensorgrad.dtypes import WIDE_FLOATS
from tensorgrad.errors import CompileError
from tensorgrad.program.ir import Instruction, Program, Value, exact
from tensorgrad.program.loop_ir import (
    Call,
    Check,
    Map,
    Operation,
    Product,
    Reduce,
    Scalar,
    Storage,
    View,
    extent_of,
    is_plain,
    strides_of,
)
from tensorgrad.tape import CAST

BOOL, INT64, UINT8 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.uint8)
#: The element types that loops can compute with, in C.
C_TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.int64): "int64_t",
    np.dtype(np.int32): "int32_t",
    BOOL: "uint8_t",
    UINT8: "uint8_t",  # pixels, to be converted: there is no arithmetic with them
}

# Elementwise primitives: the C expression, its cost, and whether the result is a truth value.
# {f} is the ending of the functions of the result's type: tg_exp{f} is tg_exp_f or tg_exp_d.
_EXPRESSIONS: dict[str, tuple[str, int]] = {
    "add": ("{0} + {1}", 1),
    "subtract": ("{0} - {1}", 1),
    "multiply": ("{0} * {1}", 1),
    "divide": ("{0} / {1}", 4),
    "negative": ("-{0}", 1),
    "positive": ("{0}", 1),
    "square": ("{0} * {0}", 1),
    "reciprocal": ("1 / {0}", 4),
    "abs": ("tg_abs{f}({0})", 1),
    "sign": ("tg_sign{f}({0})", 2),
    "exp": ("tg_exp{f}({0})", 12),
    "expm1": ("tg_expm1{f}({0})", 20),
    "exp2": ("tg_exp2{f}({0})", 12),
    "log": ("tg_log{f}({0})", 14),
    "log1p": ("tg_log1p{f}({0})", 20),
    "log2": ("tg_log2{f}({0})", 20),
    "log10": ("tg_log10{f}({0})", 20),
    "sqrt": ("tg_sqrt{f}({0})", 6),
    "rsqrt": ("1 / tg_sqrt{f}({0})", 10),
    "sin": ("tg_sin{f}({0})", 30),
    "cos": ("tg_cos{f}({0})", 30),
    "tan": ("tg_tan{f}({0})", 30),
    "asin": ("tg_asin{f}({0})", 30),
    "acos": ("tg_acos{f}({0})", 30),
    "atan": ("tg_atan{f}({0})", 30),
    "atan2": ("tg_atan2{f}({0}, {1})", 40),
    "hypot": ("tg_hypot{f}({0}, {1})", 30),
    "sinh": ("tg_sinh{f}({0})", 30),
    "cosh": ("tg_cosh{f}({0})", 30),
    "tanh": ("tg_tanh{f}({0})", 20),
    "asinh": ("tg_asinh{f}({0})", 40),
    "acosh": ("tg_acosh{f}({0})", 40),
    "atanh": ("tg_atanh{f}({0})", 40),
    "erf": ("tg_erf{f}({0})", 25),
    "sigmoid": ("tg_sigmoid{f}({0})", 16),
    "floor": ("tg_floor{f}({0})", 1),
    "ceil": ("tg_ceil{f}({0})", 1),
    "trunc": ("tg_trunc{f}({0})", 1),
    "round": ("tg_rint{f}({0})", 1),
    "maximum": ("tg_max{f}({0}, {1})", 1),
    "minimum": ("tg_min{f}({0}, {1})", 1),
    "relu": ("({0} <= 0 ? 0 : {0})", 1),  # NaN stays, and -0.0 becomes 0.0
    "pass_positive": ("({1} > 0 ? {0} : 0)", 1),
    "where": ("({0} ? {1} : {2})", 1),
    "zero": ("0", 0),
}
_COMPARISONS: dict[str, str] = {
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_xor": "({0} != 0) ^ ({1} != 0)",
    "logical_not": "{0} == 0",
    "isnan": "{0} != {0}",
}
# What holds for integers too. Elsewhere they go the way of NumPy, whose rules are its own.
_INTEGERS_TOO = frozenset(
    {"add", "subtract", "multiply", "negative", "positive", "square", "where", "zero"}
)


class Lowering:
    """Writes loops; the methods are the vocabulary of the rows."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.operations: list[Operation] = []
        self.scalars: list[Scalar] = []
        self.views: dict[Value, View] = {}
        self.storages: list[Storage] = []
        self.where = ""
        self._known: dict[Any, View] = {}  # what was computed before, for those who ask again
        self._sharing = True
        self._kept = set(program.kept())
        self._overwritten = {v.place for i in program for v in i.outputs if v.before is not None}
        self._last_use: dict[Value, int] = dict.fromkeys(self._kept, len(program.instructions))
        for at, i in enumerate(program):
            for v in i.values():
                self._last_use[v] = max(at, self._last_use.get(v, 0))
        for v in program.values():
            if v.role != "temporary":
                self.views[v] = self._outside(v)
        for at, i in enumerate(program):
            self.where = i.where
            if i.written:
                self._save_copies(i, at)
            self._lower(i)

    # --- memory ---------------------------------------------------------------------------------

    def storage(self, size: int, dtype: np.dtype[Any], role: str = "temporary") -> Storage:
        """New memory for ``size`` elements."""
        made = Storage(len(self.storages), size, dtype, role)
        self.storages.append(made)
        return made

    def new(self, shape: Sequence[int], dtype: np.dtype[Any]) -> View:
        """A new value in memory of its own."""
        shape = tuple(shape)
        return View(self.storage(math.prod(shape), dtype), shape, strides_of(shape))

    def _outside(self, v: Value) -> View:
        strides, size, offset = strides_of(v.shape), math.prod(v.shape), 0
        if v.role == "external" and v.array.size and is_plain(v.array):
            strides, size, offset = extent_of(v.array)
        storage = self.storage(size, v.dtype, v.role)
        if v not in self._overwritten:
            storage.value = v
        return View(storage, v.shape, strides, offset)

    def _save_copies(self, i: Instruction, at: int) -> None:
        """Copy what a later instruction needs of the memory that ``i`` is about to overwrite.

        Where the step had a view of that memory it does not use it again, or the program would be
        aliased. What is here a view of it may have been a copy there (of a reshaped array, say).
        """
        places = [v.place for v in i.outputs if v.before is not None]
        written = {self.views[place].storage for place in places if place.role == "external"}
        for v, view in list(self.views.items()):
            if view.storage in written and v.place not in places and self._last_use.get(v, 0) >= at:
                if v.dtype in C_TYPES and view.size:
                    self.views[v] = self.map("{0}", view)
                else:
                    copied = Instruction(CAST, (v,), {"dtype": v.dtype}, [v], where=i.where)
                    self._call(copied, [view], "of its element type")

    # --- the vocabulary ---------------------------------------------------------------------------

    def map(
        self,
        text: str,
        *inputs: Any,
        dtype: Any = None,
        cost: int = 1,
        shape: tuple[int, ...] | None = None,
        into: View | None = None,
    ) -> View:
        """A map over the common shape of the inputs; of the first input's dtype by default.

        into: where the result is written, for an update of memory from outside.
        """
        views = [x for x in inputs if isinstance(x, View)]
        if shape is None:
            shape = np.broadcast_shapes(*[v.shape for v in views])
        if dtype is None:
            dtype = next((v.dtype for v in views if v.dtype in WIDE_FLOATS), None) or views[0].dtype
        text = text.replace("{f}", "_f" if dtype == np.float32 else "_d")
        given = tuple(x.broadcast(shape) if isinstance(x, View) else x for x in inputs)
        key = text, tuple(x if isinstance(x, View) else exact(x) for x in given), dtype, shape
        if into is not None:
            self._known.clear()  # it may have read what is overwritten
        elif text != "{0}" and self._sharing and key in self._known:
            return self._known[key]
        out = self.new(shape, dtype) if into is None else into
        self.operations.append(Map(out, given, text, cost, self.where))
        if into is None:
            self._known[key] = out
        return out

    def unary(self, name: str, x: Any) -> View:
        """An elementwise primitive of one input, by name."""
        text, cost = _EXPRESSIONS[name]
        return self.map(text, x, cost=cost)

    def reduce(self, kind: str, x: View, axes: Sequence[int]) -> View:
        """``x`` reduced over ``axes``, which stay with size 1."""
        shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
        axes = [k for k in sorted(axes) if x.shape[k] != 1]
        if not axes:  # NumPy begins a sum with 0.0, which makes 0.0 of -0.0
            return self.map("{0} + 0", x) if kind == "+" else x
        wide = [k for k, n in enumerate(x.shape) if n != 1]
        leading = axes == wide[: len(axes)] and len(axes) == len(wide) - 1
        if axes == wide or axes == wide[-1:] or leading:
            key = (kind, x, tuple(axes))
            if self._sharing and key in self._known:
                return self._known[key]
            out = self._known[key] = self.new(shape, x.dtype)
            self.operations.append(Reduce(out, x, kind, tuple(axes), self.where))
            return out
        # Only the last axis, or all but it, can be reduced by a loop: bring the axes to the end.
        kept = [k for k in wide if k not in axes]
        moved = x.permute([*kept, *axes])
        merged = moved.reshape((*moved.shape[: len(kept)], math.prod(x.shape[k] for k in axes)))
        if merged is None:
            while len(moved.shape) > len(kept):
                last = len(moved.shape) - 1
                moved = self.drop(self.reduce(kind, moved, [last]), [last])
            return self.reshape(moved, shape)
        return self.reshape(self.reduce(kind, merged, [len(kept)]), shape)

    def drop(self, x: View, axes: Sequence[int]) -> View:
        """``x`` without these axes, which have size 1."""
        return self.reshape(x, [n for k, n in enumerate(x.shape) if k not in axes])

    def reshape(self, x: View, shape: Sequence[int]) -> View:
        """``x`` with another shape, copied if need be."""
        shape = tuple(shape)
        found = x.reshape(shape)
        if found is None:
            copied = self.map("{0}", x).reshape(shape)
            assert copied is not None
            return copied
        return found

    def matmul(self, a: View, b: View) -> View:
        """The matrix product of two stacks."""
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = self.new((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        a = self._factor(a.broadcast((*batch, *a.shape[-2:])))
        b = self._factor(b.broadcast((*batch, *b.shape[-2:])))
        self.operations.append(Product(out, a, b, self.where))
        return out

    def _factor(self, x: View) -> View:
        """A matrix one of whose axes has its elements side by side, as BLAS wants it."""
        (rows, columns), (r, c) = x.shape[-2:], x.strides[-2:]
        if ((c == 1 or columns == 1) and r >= columns) or ((r == 1 or rows == 1) and c >= rows):
            return x
        return self.map("{0}", x)

    def check(self, labels: View, classes: int) -> View:
        """``labels``, which stop the program unless they lie in [0, classes).

        On a GPU nothing stops: nobody waits there for what the labels are.
        """
        if not self.program.on_host:
            return labels
        if not labels.contiguous:
            labels = self.map("{0}", labels)
        self.operations.append(Check(labels, classes, self.where))
        return labels

    # --- instructions -----------------------------------------------------------------------------

    def _lower(self, i: Instruction) -> None:
        try:
            inputs = [self.views[x] if type(x) is Value else x for x in i.inputs]
        except KeyError as error:
            raise CompileError(f"{i.op.name} uses what only a kernel computes") from error
        name = i.op.kernel if i.op.name in _BY_KERNEL else i.op.name
        row = _ROWS.get(name or "")
        known = all(v.dtype in C_TYPES and math.prod(v.shape) for v in [*i.values(), *i.outputs])
        reason = "it has no loop form"
        # What is seen from outside has memory of its own.
        self._sharing = not self._kept.intersection(i.outputs)
        if row is not None and known:
            before = len(self.operations), len(self.storages)
            try:
                found = row(self, i, *inputs, **i.attrs)
            except _StaysACallError as why:
                found, reason = None, str(why)
                del self.operations[before[0] :], self.storages[before[1] :]
                self._known.clear()
            if found is not None:
                views = [found] if isinstance(found, View) else list(found)
                for v, view in zip(i.outputs, views):
                    if view.shape == v.shape:  # kernels have residuals of their own, not used here
                        self.views[v] = view
                return
        elif row is not None:
            reason = "of its element type, or because there are no elements"
        self._call(i, inputs, reason)

    def _call(self, i: Instruction, inputs: list[Any], reason: str) -> None:
        outputs = []
        for v in i.outputs:
            if v.before is not None and v.place.role == "external":
                view = self.views[v.before]
            else:  # what the step made itself is not overwritten: the new value has memory too
                view = self.new(v.shape, v.dtype)
            self.views[v] = view
            outputs.append(view)
        if i.written:
            self._known.clear()
        self.operations.append(Call(i, tuple(inputs), tuple(outputs), reason, i.where))

    def live(self, i: Instruction, name: str, dtype: np.dtype[Any]) -> View:
        """An attribute that is another number in every replay."""
        out = self.new((), dtype)
        out.storage.role = "scalar"
        self.scalars.append(Scalar(out, i, name))
        return out


class _StaysACallError(Exception):
    """Says why a primitive stays a call here."""


Row = Callable[..., Any]
_ROWS: dict[str, Row] = {}
_BY_KERNEL = frozenset({"gelu"})  # two primitives of one name


def _row(*names: str) -> Callable[[Row], Row]:
    def enter(row: Row) -> Row:
        for name in names:
            _ROWS[name] = row
        return row

    return enter


# --- elementwise ----------------------------------------------------------------------------------


def _elementwise(name: str) -> Row:
    text, cost = _EXPRESSIONS[name]

    def row(to: Lowering, i: Instruction, *inputs: Any) -> View:
        dtype = i.outputs[0].dtype
        if dtype not in WIDE_FLOATS and name not in _INTEGERS_TOO:
            raise _StaysACallError(f"{name} of {dtype} is left to NumPy")
        if dtype == UINT8:
            raise _StaysACallError("arithmetic with bytes is left to NumPy")
        if (name == "negative" and dtype == BOOL) or (
            name in ("add", "multiply") and dtype == BOOL
        ):
            raise _StaysACallError("arithmetic with truth values is left to NumPy")
        if name == "multiply":
            for one, other in (inputs, inputs[::-1]):
                if _is_one(one) and isinstance(other, View) and other.dtype == dtype:
                    return to.map("{0}", other, shape=i.outputs[0].shape)
        return to.map(text, *inputs, dtype=dtype, cost=cost, shape=i.outputs[0].shape)

    return row


def _is_one(x: Any) -> bool:
    return bool((x.storage.number_held if isinstance(x, View) else x) == 1)


def _comparison(name: str) -> Row:
    text = _COMPARISONS[name]

    def row(to: Lowering, i: Instruction, *inputs: Any) -> View:
        kinds = {x.dtype for x in inputs if isinstance(x, View)}
        if len(kinds) > 1:
            raise _StaysACallError("operands of two types")
        return to.map(text, *inputs, dtype=BOOL, shape=i.outputs[0].shape)

    return row


for _name in _EXPRESSIONS:
    _ROWS[_name] = _elementwise(_name)
for _name in _COMPARISONS:
    _ROWS[_name] = _comparison(_name)


@_row("astype")
def _astype(to: Lowering, i: Instruction, x: View, dtype: Any) -> View:
    if dtype == BOOL:
        return to.map("{0} != 0", x, dtype=BOOL)
    if dtype.kind in "iu" and x.dtype.kind == "f":
        raise _StaysACallError("floats to integers is left to NumPy")
    return to.map(f"({C_TYPES[dtype]}){{0}}", x, dtype=dtype)


@_row("pow")
def _pow(to: Lowering, i: Instruction, *inputs: Any, exponent: Any = None, base: Any = None) -> Any:
    dtype = i.outputs[0].dtype
    if dtype not in WIDE_FLOATS:
        raise _StaysACallError("powers of integers are left to NumPy")
    if exponent is not None:
        (x,) = inputs
        if exponent in (1, 2, 3, 4):
            return to.map(" * ".join(["{0}"] * int(exponent)), x)
        if exponent == 0.5:
            return to.unary("sqrt", x)
        return to.map("tg_pow{f}({0}, {1})", x, float(exponent), cost=40)
    if base is not None:
        return to.map("tg_pow{f}({1}, {0})", inputs[0], float(base), cost=40)
    return to.map("tg_pow{f}({0}, {1})", *inputs, dtype=dtype, cost=40)


@_row("part_of_larger")
def _part_of_larger(to: Lowering, i: Instruction, g: View, x1: Any, x2: Any) -> View:
    if g.dtype not in WIDE_FLOATS:
        raise _StaysACallError("integers are left to NumPy")
    return to.map("({1} > {2} ? {0} : {1} == {2} ? {0} * {3} : 0)", g, x1, x2, 0.5, cost=3)


@_row("ratio")
def _ratio(to: Lowering, i: Instruction, x: Any, length: View) -> View:
    text = (
        "({1} == 0 ? {0} / {2} : tg_abs{f}({0}) == {2} && {1} == {2} ? tg_sign{f}({0}) : {0} / {1})"
    )
    return to.map(text, x, length, math.inf, dtype=i.outputs[0].dtype, cost=6)


@_row("over_squares")
def _over_squares(to: Lowering, i: Instruction, x: Any, other: Any) -> View:
    dtype = i.outputs[0].dtype
    top = to.map("tg_max{f}(tg_abs{f}({0}), tg_abs{f}({1}))", x, other, dtype=dtype)
    part, rest = (to.map("{0} / {1}", a, top, dtype=dtype, cost=4) for a in (x, other))
    text = "({2} == 0 || {2} == {3} ? 0 : {0} / ({0} * {0} + {1} * {1}) / {2})"
    return to.map(text, part, rest, top, math.inf, cost=10)


@_row("weighted")
def _weighted(to: Lowering, i: Instruction, x: Any, weight: Any) -> View:
    text = "({1} == 0 ? 0 : {0} * {1})"
    return to.map(text, x, weight, dtype=i.outputs[0].dtype, cost=2)


@_row("clip")
def _clip(to: Lowering, i: Instruction, x: View, low: Any, high: Any) -> View:
    if x.dtype not in WIDE_FLOATS:
        raise _StaysACallError("integers are left to NumPy")
    y = x if low is None else to.map("tg_max{f}({0}, {1})", x, low)
    y = y if high is None else to.map("tg_min{f}({0}, {1})", y, high)
    return to.map("{0}", y) if y is x else y


@_row("leaky_relu")
def _leaky(to: Lowering, i: Instruction, x: View, negative_slope: float) -> View:
    return to.map("({0} > 0 ? {0} : {0} * {1})", x, negative_slope)


@_row("elu")
def _elu(to: Lowering, i: Instruction, x: View, alpha: float) -> View:
    return to.map("({0} > 0 ? {0} : {1} * tg_expm1{f}(tg_min{f}({0}, 0)))", x, alpha, cost=22)


@_row("hardtanh")
def _hardtanh(to: Lowering, i: Instruction, x: View, min_val: float, max_val: float) -> View:
    return to.map("tg_min{f}(tg_max{f}({0}, {1}), {2})", x, min_val, max_val)


@_row("softplus")
def _softplus(to: Lowering, i: Instruction, x: View) -> View:
    return to.map("tg_max{f}({0}, 0) + tg_log1p{f}(tg_exp{f}(-tg_abs{f}({0})))", x, cost=35)


@_row("silu")
def _silu(to: Lowering, i: Instruction, x: View) -> View:
    return to.map("{0} * tg_sigmoid{f}({0})", x, cost=17)


@_row("gelu")
def _gelu(to: Lowering, i: Instruction, x: View) -> View:
    return to.map("{2} * {0} * (tg_erf{f}({0} * {1}) + 1)", x, math.sqrt(0.5), 0.5, cost=27)


@_row("gelu_tanh")
def _gelu_tanh(to: Lowering, i: Instruction, x: View) -> View:
    text = "{1} * {0} * (tg_tanh{f}({0} * ({0} * {0} * {2} + 1) * {3}) + 1)"
    return to.map(text, x, 0.5, 0.044715, math.sqrt(2.0 / math.pi), cost=26)


@_row("binary_cross_entropy_with_logits")
def _bce(to: Lowering, i: Instruction, x: View, t: Any) -> View:
    text = (
        "({1} == 1 ? 0 : tg_max{f}({0}, 0) * (1 - {1})) + "
        "({1} == 0 ? 0 : tg_max{f}(-{0}, 0) * {1}) + "
        "tg_log1p{f}(tg_exp{f}(-tg_abs{f}({0})))"
    )
    return to.map(text, x, t, cost=38)


def _with_bias(name: str) -> Row:
    def row(to: Lowering, i: Instruction, z: View, bias: View, **options: float) -> View:
        return _ROWS[name](to, i, to.map("{0} + {1}", z, bias), **options)

    return row


for _name in (
    "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus",
):  # fmt: skip
    _ROWS[f"bias_{_name}"] = _with_bias(_name)


def _mask(to: Lowering, i: Instruction, x: View, p: float) -> View:
    if i.live is None:
        raise _StaysACallError("its random numbers are always the same")
    key, position = to.live(i, "key", INT64), to.live(i, "position", INT64)
    # what ops/random.py compares with, and by what it multiplies
    threshold = min(round(p * 2.0**32), 2**32 - 1)
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    text = f"(tg_word({{0}}, {{1}} + {{index}}) >= {threshold}u ? {{2}} : 0)"
    return to.map(text, key, position, scale, dtype=x.dtype, shape=x.shape, cost=60)


@_row("dropout")
def _dropout(
    to: Lowering, i: Instruction, x: View, key: int, position: int, p: float
) -> tuple[View, View]:
    if x.dtype not in WIDE_FLOATS:
        raise _StaysACallError("integers are left to NumPy")
    mask = _mask(to, i, x, p)
    return to.map("{0} * {1}", x, mask), mask


@_row("random.dropout_mask")
def _dropout_mask(to: Lowering, i: Instruction, x: View, key: int, position: int, p: float) -> View:
    return _mask(to, i, x, p)


# --- shapes ---------------------------------------------------------------------------------------


@_row("reshape")
def _reshape(to: Lowering, i: Instruction, x: View, shape: Any) -> View:
    return to.reshape(x, i.outputs[0].shape)


@_row("permute_dims")
def _permute(to: Lowering, i: Instruction, x: View, axes: Sequence[int]) -> View:
    return x.permute(axes)


@_row("broadcast_to")
def _broadcast(to: Lowering, i: Instruction, x: View, shape: Any) -> View:
    return x.broadcast(i.outputs[0].shape)


@_row("getitem")
def _getitem(to: Lowering, i: Instruction, x: View, *indices: Any, **attrs: Any) -> View:
    if "index" not in attrs or indices:
        raise _StaysACallError("an index with arrays")
    from tensorgrad.ops.shaping import decoded

    return x.slice(decoded(attrs["index"]))


# --- reductions -----------------------------------------------------------------------------------


def _kept_or_not(to: Lowering, y: View, axes: Sequence[int], keepdims: bool) -> View:
    return y if keepdims else to.drop(y, axes)


@_row("sum", "prod")
def _sum(to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool) -> View:
    if x.dtype not in WIDE_FLOATS:
        raise _StaysACallError("sums and products of integers are left to NumPy")
    kind = "+" if i.op.name == "sum" else "*"
    return _result(to, i, _kept_or_not(to, to.reduce(kind, x, axis), axis, keepdims), x)


@_row("max", "min")
def _extreme(to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool) -> View:
    if x.dtype not in WIDE_FLOATS:
        raise _StaysACallError("integers are left to NumPy")
    return _result(to, i, _kept_or_not(to, to.reduce(i.op.name, x, axis), axis, keepdims), x)


def _result(to: Lowering, i: Instruction, y: View, x: View) -> View:
    """``y``, copied if it is nothing but a view of the input."""
    return to.map("{0}", y) if y.storage is x.storage else y


@_row("mean")
def _mean(to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool) -> View:
    return _kept_or_not(to, _mean_over(to, x, axis), axis, keepdims)


def _mean_over(to: Lowering, x: View, axes: Sequence[int]) -> View:
    n = math.prod(x.shape[a] for a in axes)
    return to.map("{0} / {1}", to.reduce("+", x, axes), float(n), cost=4)


@_row("var", "std")
def _var(
    to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool, correction: float
) -> View:
    n = math.prod(x.shape[a] for a in axis) - correction
    if n <= 0:
        raise _StaysACallError("too few elements")
    d = to.map("{0} - {1}", x, _mean_over(to, x, axis))
    if i.op.name == "std":
        y = to.map("{0} / {1}", _root_of_squares(to, d, axis), math.sqrt(n), cost=4)
    else:
        y = to.map("{0} / {1}", to.reduce("+", to.map("{0} * {0}", d), axis), float(n), cost=4)
    return _kept_or_not(to, y, axis, keepdims)


#: By which float64 numbers are multiplied or divided so that their squares are in range.
_BEYOND = 2.0**600


def _squares(to: Lowering, x: View, axes: Sequence[int]) -> list[View]:
    """What ``_root`` takes the root of: sums of squares, those of float32 in float64.

    Of float64 there are besides the sums for small parts of the numbers and large multiples.
    """
    if x.dtype != np.float64:
        parts = [to.map("(double){0}", x, dtype=np.dtype(np.float64))]
    else:
        parts = [x, to.map("{0} * {1}", x, 1 / _BEYOND), to.map("{0} * {1}", x, _BEYOND)]
    return [to.reduce("+", to.map("{0} * {0}", part), axes) for part in parts]


def _root(to: Lowering, squares: Sequence[View]) -> View:
    """The root of the first sum, from the others where that is out of range."""
    if len(squares) == 1:
        return to.map("(float)tg_sqrt_d({0})", *squares, dtype=np.dtype(np.float32), cost=6)
    text = "({0} == {3} ? tg_sqrt_d({1}) * {4} : {0} < {5} ? tg_sqrt_d({2}) / {4} : tg_sqrt_d({0}))"
    return to.map(text, *squares, math.inf, _BEYOND, least_squares(squares[0].dtype), cost=18)


def _root_of_squares(to: Lowering, x: View, axes: Sequence[int]) -> View:
    """The root of the sum of squares, also where these are outside the range of the numbers."""
    return _root(to, _squares(to, x, axes))


@_row("norm")
def _norm(to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool) -> View:
    return _kept_or_not(to, _root_of_squares(to, x, axis), axis, keepdims)


@_row("p_norm")
def _p_norm(to: Lowering, i: Instruction, x: View, ord: float, axis: Any, keepdims: bool) -> View:
    # Parts of the largest, or multiples of the least: their powers are in range.
    size = to.unary("abs", x)
    scale = to.reduce("max" if ord > 0 else "min", size, axis)
    scale = to.map("({0} > 0 && tg_finite{f}({0}) ? {0} : 1)", scale)
    total = to.reduce("+", to.map("tg_pow{f}({0} / {1}, {2})", size, scale, ord, cost=44), axis)
    y = to.map("{0} * tg_pow{f}({1}, {2})", scale, total, 1.0 / ord, cost=40)
    return _kept_or_not(to, y, axis, keepdims)


@_row("finite_top")
def _finite_top(to: Lowering, i: Instruction, x: View, axis: Any) -> View:
    return _top(to, x, axis)


def _top(to: Lowering, x: View, axes: Sequence[int]) -> View:
    return to.map("(tg_finite{f}({0}) ? {0} : 0)", to.reduce("max", x, axes))


@_row("logsumexp")
def _logsumexp(to: Lowering, i: Instruction, x: View, axis: Any, keepdims: bool) -> View:
    top = _top(to, x, axis)
    e = to.unary("exp", to.map("{0} - {1}", x, top))
    y = to.map("tg_log{f}({0}) + {1}", to.reduce("+", e, axis), top, cost=15)
    return _kept_or_not(to, y, axis, keepdims)


@_row("sum_to")
def _sum_to(to: Lowering, i: Instruction, x: View, shape: Sequence[int]) -> View:
    if x.dtype not in WIDE_FLOATS:
        raise _StaysACallError("sums of integers are left to NumPy")
    extra = len(x.shape) - len(shape)
    axes = [
        *range(extra),
        *(extra + k for k, n in enumerate(shape) if n == 1 != x.shape[extra + k]),
    ]
    return _result(to, i, to.reshape(to.reduce("+", x, axes), shape), x)


@_row("share_of_extreme")
def _share(to: Lowering, i: Instruction, x: View, y: View, axis: Any, keepdims: bool) -> View:
    if not keepdims:
        y = to.reshape(y, [1 if k in axis else n for k, n in enumerate(x.shape)])
    taken = to.map("({0} == {1} || ({0} != {0} && {1} != {1}) ? 1 : 0)", x, y)
    return to.map("{0} / tg_max{f}({1}, 1)", taken, to.reduce("+", taken, axis), cost=4)


# --- softmax and its kin --------------------------------------------------------------------------


def _shifted(to: Lowering, x: View, axis: int) -> View:
    return to.map("{0} - {1}", x, to.reduce("max", x, [axis]))


@_row("softmax")
def _softmax(to: Lowering, i: Instruction, x: View, axis: int) -> View:
    e = to.unary("exp", _shifted(to, x, axis))
    return to.map("{0} / {1}", e, to.reduce("+", e, [axis]), cost=4)


@_row("log_softmax")
def _log_softmax(to: Lowering, i: Instruction, x: View, axis: int) -> View:
    z = _shifted(to, x, axis)
    total = to.unary("log", to.reduce("+", to.unary("exp", z), [axis]))
    return to.map("{0} - {1}", z, total)


@_row("one_hot")
def _one_hot(to: Lowering, i: Instruction, labels: View, n: int, dtype: Any) -> View:
    if labels.dtype != INT64 or dtype not in C_TYPES:
        raise _StaysACallError("labels of another type than int64")
    labels = to.check(labels, n)
    column = to.reshape(labels, (*labels.shape, 1))
    text = "({0} == {column})"
    if not to.program.on_host and dtype in WIDE_FLOATS:  # as eager mode does there
        text = "({0} >= 0 && {0} < {1} ? {0} == {column} : NAN)"
    return to.map(text, column, n, dtype=dtype, shape=(*labels.shape, n))


@_row("cross_entropy")
def _cross_entropy(
    to: Lowering, i: Instruction, logits: View, labels: View, reduction: str
) -> tuple[View, View]:
    if labels.dtype != INT64:
        raise _StaysACallError("labels of another type than int64")
    n, classes = logits.shape
    column = to.reshape(to.check(labels, classes), (n, 1))
    z = _shifted(to, logits, 1)
    e = to.unary("exp", z)
    sums = to.reduce("+", e, [1])
    picked = to.reduce("+", to.map("({1} == {column} ? {0} : 0)", z, column), [1])
    if not to.program.on_host:  # as the kernel does with a label that is none
        sums = to.map("({1} >= 0 && {1} < {2} ? {0} : NAN)", sums, column, classes)
    text = "({0} * {1} - ({2} == {column} ? 1 : 0))"
    excess = to.map(text, e, to.map("1 / {0}", sums, cost=4), column, cost=2)
    each = to.map("tg_log{f}({0}) - {1}", sums, picked, cost=15)
    if reduction == "none":
        return to.reshape(each, (n,)), excess
    loss = to.reduce("+", each, [0, 1])
    if reduction == "mean":
        loss = to.map("{0} / {1}", loss, float(n), cost=4)
    return to.reshape(loss, ()), excess


@_row("layer_norm")
def _layer_norm(
    to: Lowering, i: Instruction, x: View, weight: Any, bias: Any, eps: float
) -> tuple[View, View, View]:
    last = [len(x.shape) - 1]
    center = _mean_over(to, x, last)
    d = to.map("{0} - {1}", x, center)
    scale = to.map(
        "1 / tg_sqrt{f}({0} + {1})", _mean_over(to, to.map("{0} * {0}", d), last), eps, cost=10
    )
    y = to.map("{0} * {1}", d, scale)
    return _scaled(to, y, weight, bias), center, scale


def _scaled(to: Lowering, y: View, weight: Any, bias: Any) -> View:
    if weight is not None:
        y = to.map("{0} * {1}", y, weight)
    return y if bias is None else to.map("{0} + {1}", y, bias)


@_row("rms_norm")
def _rms_norm(to: Lowering, i: Instruction, x: View, weight: Any, eps: float) -> tuple[View, View]:
    square = _mean_over(to, to.map("{0} * {0}", x), [len(x.shape) - 1])
    scale = to.map("1 / tg_sqrt{f}({0} + {1})", square, eps, cost=10)
    return _scaled(to, to.map("{0} * {1}", x, scale), weight, None), scale


# --- products -------------------------------------------------------------------------------------


@_row("matmul")
def _matmul(to: Lowering, i: Instruction, a: View, b: View) -> View:
    if i.outputs[0].dtype not in WIDE_FLOATS:
        raise _StaysACallError("products of integers are left to NumPy")
    first, second = a, b
    if len(a.shape) == 1:
        first = a.slice((None, slice(None)))
    if len(b.shape) == 1:
        second = b.slice((slice(None), None))
    if len(second.shape) == 2 < len(first.shape) and first.contiguous:
        flat = first.reshape((math.prod(first.shape[:-1]), first.shape[-1]))
        assert flat is not None
        first = flat
    return to.reshape(to.matmul(first, second), i.outputs[0].shape)


@_row("linear")
def _linear(to: Lowering, i: Instruction, x: View, weight: View, bias: Any) -> View:
    flat = to.reshape(x, (x.size // x.shape[-1], x.shape[-1]))
    y = to.reshape(to.matmul(flat, weight.permute((1, 0))), i.outputs[0].shape)
    return y if bias is None else to.map("{0} + {1}", y, bias)


# --- overwriting what lies outside ----------------------------------------------------------------


@_row("copy_")
def _copy(to: Lowering, i: Instruction, target: View, source: View) -> Any:
    text = f"({C_TYPES[target.dtype]}){{0}}"
    if target.dtype != source.dtype and "f" not in (target.dtype.kind, source.dtype.kind):
        raise _StaysACallError("integers of two types")
    into = target if i.outputs[0].place.role == "external" else None
    return to.map(text, source, shape=target.shape, into=into, dtype=target.dtype)


def _parameters(
    i: Instruction, states: int, arrays: Sequence[Any]
) -> tuple[list[View], list[View], list[View]]:
    """The parameters of an update, their gradients, and where their parts of a state begin."""
    n = (len(arrays) - states) // 2
    params, grads = list(arrays[states : states + n]), list(arrays[states + n :])
    for p in params:
        if p.dtype not in WIDE_FLOATS or p.storage.role != "external" or not p.contiguous:
            raise _StaysACallError("a parameter is no contiguous array of floats from outside")
    return params, grads, list(arrays[:states])


def _part(state: View, start: int, p: View) -> View:
    return View(state.storage, p.shape, strides_of(p.shape), state.offset + start)


def _in_order(i: Instruction, made: dict[int, View], step: Any) -> list[View]:
    """What the outputs of an update are: the memory that it overwrote."""
    return [made[k] for k in i.written]


@_row("sgd")
def _sgd(to: Lowering, i: Instruction, step: Any, *arrays: Any, **options: Any) -> Any:
    if options["dampening"]:
        raise _StaysACallError("dampening is left to NumPy")
    params, grads, (velocity,) = _parameters(i, 1, arrays)
    scratch, start = options["scratch"], 0
    rate = to.live(i, "lr", params[0].dtype)
    for p, g, start in zip(params, grads, scratch.starts):
        g = _with_decay(to, p, g, options)
        if velocity is not None:
            part = _part(velocity, start, p)
            v = to.map("{0} * {1} + {2}", part, options["momentum"], g, into=part)
            g = to.map("{0} * {1} + {2}", v, options["momentum"], g) if options["nesterov"] else v
        to.map("{0} - {1} * {2}", p, g, rate, into=p)
    return [to.views[i.inputs[k]] for k in i.written]


def _with_decay(to: Lowering, p: View, g: View, options: Any) -> View:
    if options["maximize"]:
        g = to.map("-{0}", g)
    if options["weight_decay"] and not options.get("decoupled"):
        g = to.map("{0} * {1} + {2}", p, float(options["weight_decay"]), g)
    return g


@_row("adam")
def _adam(to: Lowering, i: Instruction, step: View, *arrays: Any, **options: Any) -> Any:
    params, grads, (m_all, v_all, top_all) = _parameters(i, 3, arrays)
    dtype, double = params[0].dtype, np.dtype(np.float64)
    beta1, beta2 = options["betas"]
    rate = to.live(i, "lr", double)
    count = to.map("{0} + 1", step, dtype=INT64, into=step)
    t = to.map("(double){0}", count, dtype=double)
    root = to.map("sqrt(1 - pow({1}, {0}))", t, beta2, cost=1000)
    scaled = to.map("{0} * {1} / (1 - pow({3}, {2}))", rate, root, t, beta1, cost=1000)
    cast = f"({C_TYPES[dtype]})"
    small = to.map(f"{cast}({{0}} * {{1}})", root, options["eps"], dtype=dtype, cost=1000)
    size = to.map(f"{cast}{{0}}", scaled, dtype=dtype, cost=1000)
    for p, g, start in zip(params, grads, options["scratch"].starts):
        g = _with_decay(to, p, g, options)
        m_part, v_part = _part(m_all, start, p), _part(v_all, start, p)
        m = to.map("{0} * {1} + {2} * {3}", m_part, beta1, g, 1 - beta1, into=m_part)
        v = to.map("{0} * {1} + {2} * {3} * {2}", v_part, beta2, g, 1 - beta2, into=v_part)
        if top_all is not None:
            top = _part(top_all, start, p)
            v = to.map("tg_max{f}({0}, {1})", top, v, into=top)
        u = to.map("{0} / (tg_sqrt{f}({1}) + {2}) * {3}", m, v, small, size, cost=12)
        if options["weight_decay"] and options["decoupled"]:
            decay = to.map(f"{cast}({{0}} * {{1}})", rate, options["weight_decay"], dtype=dtype)
            u = to.map("{0} + {1} * {2}", u, p, decay)
        to.map("{0} - {1}", p, u, into=p)
    return [to.views[i.inputs[k]] for k in i.written]


@_row("lamb")
def _lamb(to: Lowering, i: Instruction, step: View, *arrays: Any, **options: Any) -> Any:
    params, grads, (m_all, v_all) = _parameters(i, 2, arrays)
    dtype, double = params[0].dtype, np.dtype(np.float64)
    if not all(p.size for p in params):
        raise _StaysACallError("a parameter has no elements")
    beta1, beta2 = options["betas"]
    cast = f"({C_TYPES[dtype]})"
    rate = to.live(i, "lr", dtype)
    count = to.map("{0} + 1", step, dtype=INT64, into=step)
    t = to.map("(double){0}", count, dtype=double)
    left1, left2 = (
        to.map(f"{cast}(1 - pow({{1}}, {{0}}))", t, beta, dtype=dtype, cost=1000)
        for beta in (beta1, beta2)
    )
    for p, g, start in zip(params, grads, options["scratch"].starts):
        if options["maximize"]:
            g = to.map("-{0}", g)
        m_part, v_part = _part(m_all, start, p), _part(v_all, start, p)
        m = to.map("{0} + ({1} - {0}) * {2}", m_part, g, 1 - beta1, into=m_part)
        v = to.map("{0} * {1} + {2} * {3} * {2}", v_part, beta2, g, 1 - beta2, into=v_part)
        text = "{0} / {1} / (tg_sqrt{f}({2}) / tg_sqrt{f}({3}) + {4})"
        r = to.map(text, m, left1, v, left2, options["eps"], cost=16)
        if options["weight_decay"]:
            r = to.map("{0} + {1} * {2}", r, p, options["weight_decay"])
        size, length = (_length(to, x) for x in (p, r))
        text = "{0} > 0 && {1} > 0 ? {0} / {1} : 1"
        to.map("{0} - {1} * {2} * {3}", p, r, to.map(text, size, length), rate, into=p)
    return [to.views[i.inputs[k]] for k in i.written]


def _length(to: Lowering, x: View) -> View:
    """The Euclidean norm of all elements."""
    return to.reshape(_root_of_squares(to, to.reshape(x, (x.size,)), [0]), ())


@_row("average")
def _average(
    to: Lowering, i: Instruction, count: View, *arrays: View, decay: float, warm: bool
) -> Any:
    means, values = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
    for mean, value in zip(means, values):
        alike = mean.dtype == value.dtype and mean.dtype in WIDE_FLOATS
        if not alike or mean.storage.role != "external" or not mean.contiguous:
            raise _StaysACallError("a mean and its value are no floats of one kind")
    double = np.dtype(np.float64)
    steps = to.map("{0} + 1", count, dtype=INT64, into=count)
    share: Any = None
    if warm:
        t = to.map("(double){0}", steps, dtype=double)
        share = to.map("1 - fmin((1 + {0}) / (10 + {0}), {1})", t, decay, dtype=double)
    for mean, value in zip(means, values):
        part: Any = 1 - decay
        if warm:
            part = to.map(f"({C_TYPES[mean.dtype]}){{0}}", share, dtype=mean.dtype, cost=1000)
        to.map("{0} + ({1} - {0}) * {2}", mean, value, part, into=mean)
    return [to.views[i.inputs[k]] for k in i.written]


@_row("total_norm")
def _total_norm(to: Lowering, i: Instruction, *grads: View, norm_type: float) -> View:
    if norm_type != 2.0 or any(g.dtype not in WIDE_FLOATS for g in grads):
        raise _StaysACallError("another norm than the Euclidean one")
    if any(g.dtype != grads[0].dtype for g in grads):
        raise _StaysACallError("gradients of two types")
    sums = _squares(to, to.reshape(grads[0], (grads[0].size,)), [0])
    for g in grads[1:]:
        more = _squares(to, to.reshape(g, (g.size,)), [0])
        sums = [to.map("{0} + {1}", a, b) for a, b in zip(sums, more)]
    return to.reshape(_root(to, sums), ())


@_row("clip_grad_norm_")
def _clip_norm(to: Lowering, i: Instruction, norm: View, *grads: View, max_norm: float) -> Any:
    if any(g.storage.role != "temporary" for g in grads):
        raise _StaysACallError("a gradient from before the step is scaled")
    factor = to.map("tg_min{f}({1} / ({0} + {2}), 1)", norm, max_norm, 1e-6, cost=4)
    return [to.map("{0} * {1}", g, factor) for g in grads]


@_row("clip_grad_value_")
def _clip_value(to: Lowering, i: Instruction, *grads: View, clip_value: float) -> Any:
    if any(g.storage.role != "temporary" for g in grads):
        raise _StaysACallError("a gradient from before the step is limited")
    text = "tg_min{f}(tg_max{f}({0}, -{1}), {1})"
    return [to.map(text, g, clip_value) for g in grads]
