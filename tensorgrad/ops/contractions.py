"""Einstein's notation: sums of products over labelled axes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.errors import ShapeError
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.padding import diagonal
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import permute_dims, reshape, shape_of
from tensorgrad.ops.table import operation

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["einsum", "einsum_path"]

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
        lambda s: s(s.real(2, 3), [0, 1], s.real(3, 2, 4), [1, ..., 2], [..., 2, 0]),
    ],
    method=False,
    complex=True,
)
def einsum(subscripts: Any, /, *operands: Any) -> Tensor:
    """The sum of products written in Einstein's notation, as ``einsum("ij,jk->ik", a, b)``.

    A label that does not follow the arrow is summed over; without an arrow the labels that occur
    once follow, in alphabetical order. A label twice on one operand takes its diagonal. An
    ellipsis stands for the axes not labelled, which broadcast.

    In place of a string there may be a list of integers (and an Ellipsis) behind each operand, and
    one more for the result, as in ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.

    Two operands at a time are multiplied, as a matrix product where they share a summed label; for
    more than two in the order that opt_einsum finds, where it is installed, else in NumPy's greedy
    one.

    Raises ValueError for a malformed string, ShapeError if the sizes under a label differ.
    """
    subscripts, operands = _as_text(subscripts, operands)
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


def _as_text(first: Any, more: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Subscripts as text, and the operands; where lists stand behind these, labels from them."""
    if isinstance(first, str):
        return first, more
    given = (first, *more)
    operands = given[: len(given) // 2 * 2 : 2]
    lists = [*given[1::2], *([given[-1]] if len(given) % 2 else [])]
    if not all(isinstance(labels, list | tuple) for labels in lists):
        raise TypeError(
            "einsum: give subscripts as a string, or a list of integers to each operand"
        )
    terms = [_term(labels) for labels in lists]
    text = ",".join(terms[: len(operands)])
    return text + (f"->{terms[-1]}" if len(given) % 2 else ""), operands


def _term(labels: Sequence[Any]) -> str:
    """Integers from 0 to 51 as letters, in an order that is theirs."""
    found = []
    for label in labels:
        if label is Ellipsis:
            found.append("...")
        elif hasattr(label, "__index__") and 0 <= int(label) < 52:
            n = int(label)
            found.append(chr(ord("A") + n) if n < 26 else chr(ord("a") + n - 26))
        else:
            raise ValueError(f"einsum: a label is an integer from 0 to 51; got {label!r}")
    return "".join(found)


def einsum_path(*operands: Any, optimize: Any = "greedy") -> tuple[list[Any], str]:
    """The order in which ``einsum`` multiplies its operands, as NumPy's function tells it."""
    text, tensors = _as_text(operands[0], operands[1:])
    stand_in: list[Any] = [np.broadcast_to(np.float32(0), shape_of(x)) for x in tensors]
    path: list[Any]
    path, told = np.einsum_path(text, *stand_in, optimize=optimize)
    return path, told


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


@cache
def _contract_path() -> Any:
    """opt_einsum's search for an order, where it is installed."""
    if importlib.util.find_spec("opt_einsum") is None:
        return None
    return importlib.import_module("opt_einsum").contract_path


def _path(expression: str, shapes: Sequence[tuple[int, ...]]) -> Sequence[Sequence[int]]:
    search = _contract_path()
    if search is not None:
        return search(expression, *shapes, shapes=True, optimize="auto")[0]
    stand_in: list[Any] = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    return np.einsum_path(expression, *stand_in, optimize="greedy")[0][1:]


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
    path = _path(f"{terms}->{text(output)}", [shape_of(x) for x, _ in operands])
    steps: list[Sequence[int]] = []
    for step in path:
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
