"""Products of vectors, matrices and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj, is_complex
from tensorgrad.ops.fast_paths import binary, ternary
from tensorgrad.ops.padding import diagonal
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import (
    Axis,
    expand_dims,
    matrix_transpose,
    moveaxis,
    normalize_axes,
    normalize_axis,
    permute_dims,
    reshape,
    shape_of,
)
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["dot", "einsum", "kron", "linear", "matmul", "outer", "tensordot", "trace", "vecdot"]


# --- matmul -------------------------------------------------------------------------------------


def product(xp: Any, a: Any, b: Any) -> Any:
    """``a @ b``: all matrix products of the library, on every device, are computed here.

    On a GPU by cuBLAS, in float32 throughout unless ``set_float32_matmul_precision`` allows TF32.
    """
    if xp is np:  # of two matrices its dot is the quicker way to the same BLAS
        return np.dot(a, b) if a.ndim == 2 == b.ndim else np.matmul(a, b)
    return xp.matmul(a, b) if isinstance(xp, Namespace) else backend.of(a).matmul(a, b)


def _matmul_value(xp: Any, x1: Any, x2: Any) -> Any:
    try:
        first, second = x1.ndim, x2.ndim
    except AttributeError:  # a plain number, which on a GPU comes as it is
        if x1 is None or x2 is None:
            raise
        raise ValueError("a number is no matrix") from None
    if second == 2 and first > 2:
        # One large product in place of one for each matrix of the stack.
        *batch, rows, inner = x1.shape
        if inner == x2.shape[0]:
            folded = x1.reshape(math.prod(batch) * rows, inner)
            return product(xp, folded, x2).reshape(*batch, rows, x2.shape[1])
    return product(xp, x1, x2)


def _matmul_left(g: Any, x1_shape: tuple[int, ...], x2: Any) -> Any:
    if x2.ndim == 1:  # rows times a vector: g has one number for each row
        return g * x2 if len(x1_shape) == 1 else expand_dims(g, -1) * x2
    if len(x1_shape) == 1:
        return reshape(matmul(x2, expand_dims(g, -1)), x2.shape[:-1])
    return matmul(g, x2.T if x2.ndim == 2 else matrix_transpose(x2))


def _matmul_right(g: Any, x1: Any, x2_shape: tuple[int, ...]) -> Any:
    if x1.ndim == 1:
        return g * x1 if len(x2_shape) == 1 else expand_dims(x1, -1) * expand_dims(g, -2)
    if len(x2_shape) == 1:
        inner = x1.shape[-1]
        rows = math.prod(x1.shape[:-1])
        return matmul(reshape(g, (rows,)), reshape(x1, (rows, inner)))
    if len(x2_shape) == 2:
        return _transposed_product(x1, g)
    return matmul(matrix_transpose(x1), g)


def _transposed_product(a: Any, b: Any) -> Any:
    """``a.T @ b`` of two matrices; of two stacks of rows, the sum of those products."""
    if a.ndim != 2:
        rows = math.prod(a.shape[:-1])
        a, b = reshape(a, (rows, a.shape[-1])), reshape(b, (rows, b.shape[-1]))
    return matmul(a.T, b)


def product_flops(x: Any, out: Any) -> int:
    """Those of a product whose first factor is ``x``: a multiplication and an addition each."""
    return 2 * out.size * int(x.shape[-1] if x.shape else 1)


def _explain_matmul(first: tuple[int, ...] = (), second: tuple[int, ...] = ()) -> str:
    if not first or not second:
        return "both factors need at least one axis; write a * b to multiply by a single number"
    axis = -1 if len(second) == 1 else -2
    if first[-1] != second[axis]:
        text = (
            f"the last axis of the first factor (size {first[-1]}) must equal axis {axis} of the "
            f"second (size {second[axis]})"
        )
        if len(second) > 1 and first[-1] == second[-1]:
            return text + "; transpose the second factor with .mT"
        if len(first) > 1 and first[-2] == second[axis]:
            return text + "; transpose the first factor with .mT"
        return text
    return (
        "the axes before the last two must broadcast: counted from the end, two sizes are equal "
        "or one of them is 1"
    )


_MATMUL: Primitive = Primitive(
    "matmul",
    _matmul_value,
    {"x1": _matmul_left, "x2": _matmul_right},
    promotion="same",
    half_in_float32=True,
    explain=_explain_matmul,
    fresh=True,
    flops=lambda x1, x2, out: product_flops(x1, out),
    autocast="half",
    kernel="matmul",
    complex=True,
)
_matmul = binary(_MATMUL)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(4, 2)),
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4)),
        lambda s: s(s.real(4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(4)),
        lambda s: s(s.real(4), s.real(2, 4, 3)),
        lambda s: s(s.real(3, 4), s.real(2, 4, 2)),
        lambda s: s(s.real(2, 1, 3, 4), s.real(3, 4, 2)),
        lambda s: s(s.real(3, 0), s.real(0, 2)),
        lambda s: s(s.real(0, 3, 4), s.real(4, 2)),
    ],
    primitive=_MATMUL,
)
def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product ``x1 @ x2``.

    x1: shape (..., n, k), or (k,) for a row vector. x2: (..., k, m), or (k,) for a column vector.
    The leading axes broadcast. Returns (..., n, m), without the axis that a vector lacks.

    Raises ShapeError naming the axes that must agree.
    """
    return _matmul(x1, x2)


# --- linear -------------------------------------------------------------------------------------


def linear_value(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    """``x @ weight.T + bias`` of arrays."""
    y = product(xp, x, weight.T) if x.ndim == 2 else _matmul_value(xp, x, weight.T)
    if bias is not None:
        y += bias
    return y


def linear_x(g: Any, weight: Any) -> Any:
    """The gradient of ``x``."""
    if type(g) is np.ndarray and g.ndim == 2:  # the commonest case, without dispatch
        return np.dot(g, weight)
    return matmul(g, weight)


def linear_weight(g: Any, x: Any) -> Any:
    """The gradient of ``weight``."""
    if type(g) is np.ndarray and g.ndim == 2:
        return np.dot(g.T, x)
    if x.ndim == 1:
        return expand_dims(g, -1) * x
    return _transposed_product(g, x)


def _explain_linear(
    x: tuple[int, ...] = (), weight: tuple[int, ...] = (), bias: tuple[int, ...] | None = None
) -> str:
    if not x or len(weight) != 2:
        return "the input needs at least one axis and the weight two, (out, in)"
    if x[-1] != weight[1]:
        return (
            f"the last axis of the input (size {x[-1]}) must have the weight's number of input "
            f"features, {weight[1]}"
        )
    return f"the bias must have the weight's number of output features, shape ({weight[0]},)"


_LINEAR: Primitive = Primitive(
    "linear",
    linear_value,
    {"x": linear_x, "weight": linear_weight, "bias": lambda g: g},
    promotion="same",
    half_in_float32=True,
    explain=_explain_linear,
    fresh=True,
    flops=lambda x, weight, bias, out: product_flops(x, out) + (0 if bias is None else out.size),
    autocast="half",
    kernel="linear",
    complex=True,
)
_linear = ternary(_LINEAR)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(3, 4), s.real(2, 4)),
        lambda s: s(s.real(2, 3, 4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(0, 4), s.real(2, 4), s.real(2)),
    ],
    reference=lambda x, weight, bias=0.0: np.matmul(x, weight.T) + bias,
    torch="nn.functional.linear",
    method=False,
    primitive=_LINEAR,
)
def linear(x: Any, weight: Any, bias: Any = None, /) -> Tensor:
    """``x @ weight.T + bias``.

    x: shape (..., in). weight: (out, in). bias: (out,), or ``None`` for none. Returns (..., out).
    """
    return _linear(x, weight, bias)


# --- sums of products -----------------------------------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(2, 4, 2)),
        lambda s: s(s.real(), s.real(3)),
    ],
    torch=None,
    numpy="a b !out",
    complex=True,
)
def dot(x1: Any, x2: Any, /) -> Tensor:
    """The sum of products over the last axis of ``x1`` and the last but one of ``x2``.

    A number as either factor multiplies. Of stacks of matrices, each of the first meets each of
    the second; ``matmul`` pairs them instead.
    """
    first, second = shape_of(x1), shape_of(x2)
    if not first or not second:
        from tensorgrad.ops.elementwise import multiply

        return multiply(x1, x2)
    if len(second) <= 2:
        return matmul(x1, x2)
    return tensordot(x1, x2, axes=((-1,), (-2,)))


@operation(
    cases=[lambda s: s(s.real(3), s.real(4)), lambda s: s(s.real(0), s.real(2))],
    numpy="a b !out",
    complex=True,
)
def outer(x1: Any, x2: Any, /) -> Tensor:
    """All products of an element of ``x1`` and one of ``x2``, both flattened: a matrix."""
    return reshape(x1, (-1, 1)) * reshape(x2, (1, -1))


@operation(
    cases=[
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(2, 3, 4), s.real(3, 4)),
        lambda s: s(s.real(3, 4, 1), s.real(3, 1, 2), axis=0),
    ],
    reference=lambda x1, x2, axis=-1: (np.conj(x1) * x2).sum(axis),
    torch=None,
    complex=True,
)
@in_float32
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The sum of products along ``axis`` of both; the other axes broadcast.

    Of complex numbers the conjugates of ``x1`` are taken.

    Raises ShapeError unless both have the same size along ``axis``.
    """
    sizes = [shape_of(x)[normalize_axis("vecdot", axis, x)] for x in (x1, x2)]
    if sizes[0] != sizes[1]:
        raise ShapeError(
            f"vecdot: both factors must have the same size along axis {axis}; got "
            f"{shape_of(x1)} and {shape_of(x2)}"
        )
    if len(shape_of(x1)) != len(shape_of(x2)):
        x1, x2, axis = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1), -1
    products = conj(x1) * x2 if is_complex(x1) else x1 * x2
    return sum(products, axis=axis, dtype=products.dtype if products.dtype in INTEGERS else None)


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), s.real(3, 4, 2)),
        lambda s: s(s.real(3, 4), s.real(4, 2), axes=1),
        lambda s: s(s.real(2), s.real(3), axes=0),
        lambda s: s(s.real(2, 3, 4), s.real(4, 5, 2), axes=((0, 2), (2, 0))),
        lambda s: s(s.real(2, 3), s.real(4, 3), axes=(1, 1)),
        lambda s: s(s.real(0, 3), s.real(3, 2), axes=1),
    ],
    torch=None,
    numpy="a b axes=",
    complex=True,
)
def tensordot(
    x1: Any, x2: Any, /, *, axes: int | tuple[Axis, Axis] | Sequence[Sequence[int]] = 2
) -> Tensor:
    """The sum of products over several axes of both.

    axes: n for the last n axes of ``x1`` and the first n of ``x2``; or two sequences, the axes
        of ``x1`` and those of ``x2`` that they meet. The other axes follow in order.

    Raises ShapeError if the sizes of axes that meet differ.
    """
    shape1, shape2 = shape_of(x1), shape_of(x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(len(shape1), len(shape2)):
            raise ShapeError(
                f"tensordot: axes must be at most the number of axes of either; got {axes} for "
                f"{shape1} and {shape2}"
            )
        first = tuple(range(len(shape1) - axes, len(shape1)))
        second = tuple(range(axes))
    else:
        first = normalize_axes("tensordot", axes[0], x1)
        second = normalize_axes("tensordot", axes[1], x2)
    if [shape1[a] for a in first] != [shape2[a] for a in second]:
        raise ShapeError(
            f"tensordot: the axes that meet must have equal sizes; axes {first} of {shape1} and "
            f"{second} of {shape2} do not"
        )
    rest1 = tuple(a for a in range(len(shape1)) if a not in first)
    rest2 = tuple(a for a in range(len(shape2)) if a not in second)
    inner = math.prod(shape1[a] for a in first)
    sizes1, sizes2 = tuple(shape1[a] for a in rest1), tuple(shape2[a] for a in rest2)
    left = reshape(permute_dims(x1, rest1 + first), (math.prod(sizes1), inner))
    right = reshape(permute_dims(x2, second + rest2), (inner, math.prod(sizes2)))
    return reshape(matmul(left, right), sizes1 + sizes2)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(2, 3, 3), 0, 1, 2),
        lambda s: s(s.real(0, 2)),
    ],
    torch=None,
    numpy="a offset= axis1= axis2= !dtype !out",
    complex=True,
)
def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal: of the elements ``x[i, i + offset]``."""
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


@operation(
    cases=[
        lambda s: s(s.real(2, 3), s.real(4, 2)),
        lambda s: s(s.real(3), s.real(2, 2)),
        lambda s: s(s.real(2, 1, 2), s.real(3)),
    ],
    numpy="a b",
    complex=True,
)
def kron(x1: Any, x2: Any, /) -> Tensor:
    """The Kronecker product: every element of ``x1`` times all of ``x2``, as blocks."""
    first, second = shape_of(x1), shape_of(x2)
    n = max(len(first), len(second))
    first = (1,) * (n - len(first)) + first
    second = (1,) * (n - len(second)) + second
    apart1 = tuple(size for m in first for size in (m, 1))
    apart2 = tuple(size for m in second for size in (1, m))
    product = reshape(x1, apart1) * reshape(x2, apart2)
    return reshape(product, tuple(a * b for a, b in zip(first, second, strict=True)))


# --- einsum -------------------------------------------------------------------------------------

# An operand on its way through einsum: the tensor, and a label for each of its axes.
Labelled = tuple[Any, str]


@operation(
    cases=[
        lambda s: s("ij,jk->ik", s.real(2, 3), s.real(3, 4)),
        lambda s: s("ij,jk", s.real(2, 3), s.real(3, 4)),
        lambda s: s("bij,bkj->bik", s.real(2, 3, 4), s.real(2, 5, 4)),
        lambda s: s("...ij,...jk->...ik", s.real(2, 3, 4), s.real(4, 2)),
        lambda s: s("...i->...", s.real(2, 3)),
        lambda s: s("ii->i", s.real(3, 3)),
        lambda s: s("iij->j", s.real(3, 3, 2)),
        lambda s: s("ii", s.real(3, 3)),
        lambda s: s("ij->ji", s.real(2, 3)),
        lambda s: s("ij,k->", s.real(2, 3), s.real(4)),
        lambda s: s("i,i->i", s.real(3), s.real(3)),
        lambda s: s("ij,jk,kl->il", s.real(2, 3), s.real(3, 4), s.real(4, 2)),
        lambda s: s("bhqd,bhkd->bhqk", s.real(2, 2, 3, 4), s.real(2, 2, 5, 4)),
        lambda s: s("a,b,c->cab", s.real(2), s.real(3), s.real(2)),
        lambda s: s("...,...->...", s.real(2, 3), s.real(3)),
    ],
    method=False,
    complex=True,
)
def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum of products written in Einstein's notation, as ``einsum("ij,jk->ik", a, b)``.

    A label that does not follow the arrow is summed over; without an arrow the labels that occur
    once follow, in alphabetical order. A label twice on one operand takes its diagonal. An
    ellipsis stands for the axes not labelled, which broadcast.

    Two operands at a time are multiplied, as a matrix product where they share a summed label;
    for more than two the order is NumPy's greedy one.

    Raises ValueError for a malformed string, ShapeError if the sizes under a label differ.
    """
    if not operands:
        raise ValueError("einsum: at least one operand is needed")
    inputs, output = _parse(subscripts, [shape_of(x) for x in operands])
    _check_sizes(subscripts, inputs, [shape_of(x) for x in operands])
    current = [_diagonals(x, labels) for x, labels in zip(operands, inputs, strict=True)]
    for pair in _order(current, output):
        taken = [current.pop(i) for i in sorted(pair, reverse=True)][::-1]
        kept = set(output).union(*(labels for _, labels in current))
        if len(taken) == 1:
            current.append(_summed(taken[0], kept))
        else:
            current.append(_product(taken[0], taken[1], kept))
    x, labels = _summed(current[0], set(output))
    if labels != output:
        x = permute_dims(x, [labels.index(label) for label in output])
    return x


def _parse(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """A label for each axis of each operand and of the result; those of an ellipsis are digits.

    The digits count from the end, so that the axes of the ellipses broadcast as usual.
    """
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {subscripts!r} is for {len(terms)} operands; got {len(shapes)}")
    for term in (*terms, right):
        rest = term.replace("...", "", 1)
        if rest and not (rest.isascii() and rest.isalpha()):
            raise ValueError(
                f"einsum: labels must be letters, with at most one ellipsis; got {term!r} in "
                f"{subscripts!r}"
            )
    inputs = []
    longest = 0
    for term, shape in zip(terms, shapes, strict=True):
        named = len(term.replace("...", "", 1))
        hidden = len(shape) - named
        if hidden < 0 or (hidden and "..." not in term):
            raise ShapeError(
                f"einsum: {term!r} in {subscripts!r} labels {named} axes, but its operand has "
                f"shape {shape}"
            )
        longest = max(longest, hidden)
        inputs.append(term.replace("...", _ellipsis(hidden)))
    if arrow:
        if len(set(right.replace(".", ""))) != len(right.replace(".", "")):
            raise ValueError(f"einsum: a label stands twice after the arrow of {subscripts!r}")
        unknown = set(right) - set("".join(inputs)) - {"."}
        if unknown:
            raise ValueError(
                f"einsum: label {unknown.pop()!r} after the arrow of {subscripts!r} occurs in no "
                "operand"
            )
        return inputs, right.replace("...", _ellipsis(longest))
    labels = "".join(terms).replace(".", "")
    once = "".join(sorted(label for label in set(labels) if labels.count(label) == 1))
    return inputs, _ellipsis(longest) + once


def _ellipsis(n: int) -> str:
    return "".join(chr(ord("0") + i) for i in range(n - 1, -1, -1))


def _check_sizes(subscripts: str, inputs: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
    sizes: dict[str, int] = {}
    for labels, shape in zip(inputs, shapes, strict=True):
        for label, n in zip(labels, shape, strict=True):
            known = sizes.setdefault(label, n)
            if known == 1:
                sizes[label] = n
            elif n not in (1, known):
                name = f"label {label!r}" if label.isalpha() else "the ellipsis"
                raise ShapeError(
                    f"einsum: {name} of {subscripts!r} has size {known} on one operand and {n} on "
                    f"another; got {' and '.join(map(str, shapes))}"
                )


def _diagonals(x: Any, labels: str) -> Labelled:
    """The operand with no label twice: the diagonal is taken, and stands last."""
    for label in labels:
        if labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = diagonal(x, 0, first, second)
            rest = labels[:first] + labels[first + 1 : second] + labels[second + 1 :]
            return _diagonals(x, rest + label)
    return x, labels


def _summed(operand: Labelled, kept: set[str]) -> Labelled:
    """The operand summed over the labels that nothing needs any more."""
    x, labels = operand
    axes = tuple(i for i, label in enumerate(labels) if label not in kept)
    if not axes:
        return operand
    return sum(x, axis=axes), "".join(label for label in labels if label in kept)


def _order(operands: Sequence[Labelled], output: str) -> Sequence[Sequence[int]]:
    """Which operands to multiply in each step; the product becomes the last operand."""
    if len(operands) <= 2:
        return [range(len(operands))]
    # Labels of an ellipsis are digits here, which NumPy does not accept.
    labels = sorted({label for _, names in operands for label in names})
    letters = {label: chr(ord("a") + i) for i, label in enumerate(labels)}
    if len(labels) > 26:
        return [(0, 1)] * (len(operands) - 1)

    def text(names: str) -> str:
        return "".join(letters[label] for label in names)

    terms = ",".join(text(names) for _, names in operands)
    shapes = [np.broadcast_to(np.float32(0), shape_of(x)) for x, _ in operands]
    path = np.einsum_path(f"{terms}->{text(output)}", *shapes, optimize="greedy")[0]
    steps: list[Sequence[int]] = []
    for step in path[1:]:
        # A step of several operands (NumPy joins what it cannot improve) goes pair by pair.
        members = list(step)
        count = len(operands) - len(steps)
        while len(members) > 2:
            first, second = members[-2:]
            steps.append((first, second))
            count -= 1
            members = [*members[:-2], count - 1]
            members.sort()
        steps.append(members)
    return steps


def _product(a: Labelled, b: Labelled, kept: set[str]) -> Labelled:
    """The product of two operands, summed over the labels that are not ``kept``."""
    (x, names1), (y, names2) = (
        _summed(a, kept | set(b[1])),
        _summed(b, kept | set(a[1])),
    )
    size1, size2 = dict(zip(names1, shape_of(x), strict=True)), {}
    size2 = dict(zip(names2, shape_of(y), strict=True))
    # An axis of size 1 against a longer one is a broadcast, which a matrix product cannot sum.
    summed = [n for n in names1 if n in size2 and n not in kept and size1[n] == size2[n]]
    if not summed:
        # No common sum: a plain product of the operands laid along each other.
        labels = names1 + "".join(n for n in names2 if n not in size1)
        product = _laid_out(x, names1, labels) * _laid_out(y, names2, labels)
        return _summed((product, labels), kept)
    both = [n for n in names1 if n in size2 and n not in summed]
    only1 = [n for n in names1 if n not in size2]
    only2 = [n for n in names2 if n not in size1]
    left = _as_matrices(x, names1, both, only1, summed)
    right = _as_matrices(y, names2, both, summed, only2)
    product = matmul(left, right)
    batch = tuple(max(size1[n], size2[n]) if 0 not in (size1[n], size2[n]) else 0 for n in both)
    shape = (*batch, *(size1[n] for n in only1), *(size2[n] for n in only2))
    return _summed((reshape(product, shape), "".join([*both, *only1, *only2])), kept)


def _laid_out(x: Any, names: str, labels: str) -> Any:
    """``x`` with its axes in the order of ``labels``, of size 1 where it has none."""
    sizes = dict(zip(names, shape_of(x), strict=True))
    order = [names.index(n) for n in labels if n in sizes]
    if order != sorted(order):
        x = permute_dims(x, order)
    return reshape(x, tuple(sizes.get(n, 1) for n in labels))


def _as_matrices(
    x: Any, names: str, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]
) -> Any:
    """``x`` as a stack over ``batch`` of matrices with ``rows`` and ``columns`` each made one."""
    sizes = dict(zip(names, shape_of(x), strict=True))
    order = [names.index(n) for n in (*batch, *rows, *columns)]
    if order != sorted(order):
        x = permute_dims(x, order)
    shape = (
        *(sizes[n] for n in batch),
        math.prod(sizes[n] for n in rows),
        math.prod(sizes[n] for n in columns),
    )
    return x if shape_of(x) == shape else reshape(x, shape)
