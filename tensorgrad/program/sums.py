"""Sums of matrix products as one product: the gradient of a weight that is used in every step.

Unrolled loops give the gradient of a weight as ``a1.T @ g1 + a2.T @ g2 + ...``. Where the inner
size of the terms is small, writing and adding up the products costs more than they do. Their sum is
the product of the a's and the g's, each joined along the inner axis: one long sum in place of many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from tensorgrad.ops.shaping import SUM_TO
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program.ir import Instruction, Program, Value
from tensorgrad.tape import Primitive

# Fewer products are left as they are.
_FEWEST = 3
_TYPES = (np.float32, np.float64)


def merge_sums_of_products(program: Program) -> Program:
    """Compute sums of products, of which each writes more than it reads, as one product.

    Sums over the rows of the same factors, the gradients of biases, are one sum then.
    """
    if program.aliased:
        return program
    return _Merge(_without_transposed_products(program)).program


def primitive(name: str) -> Primitive:
    """The primitive of a row of the table."""
    found = OPERATIONS[name].primitive
    assert found is not None
    return found


_ADD, _MATMUL, _CONCAT, _PERMUTE, _POSITIVE = map(
    primitive, ("add", "matmul", "concat", "permute_dims", "positive")
)


def _without_transposed_products(program: Program) -> Program:
    """``(a @ b).T``, the gradient of a weight that is used transposed, as ``b.T @ a.T``."""
    maker = {i.outputs[0]: (at, i) for at, i in enumerate(program)}
    uses = Counter(v for i in program for v in i.values())
    kept = set(program.kept())
    overwritten = {v.before for i in program for v in i.outputs if v.before is not None}
    number = max((v.number for v in program.values()), default=0) + 1
    made: list[Instruction] = []
    turned: dict[Value, Instruction] = {}
    written = -1  # the place of the last instruction that overwrites something

    def transposed(v: Value, where: str) -> Value:
        nonlocal number
        _, i = maker.get(v, (0, None))
        if i is not None and _is_transpose(i) and i.values()[0] not in overwritten:
            return i.values()[0]
        found = Value(number, v.shape[::-1], v.dtype)
        number += 1
        made.append(Instruction(_PERMUTE, (v,), {"axes": (1, 0)}, [found], where=where))
        return found

    for at, i in enumerate(program):
        before, product = maker.get(i.values()[0], (0, None)) if _is_transpose(i) else (0, None)
        if (
            product is not None
            and product.op is _MATMUL
            and uses[product.outputs[0]] == 1
            and kept.isdisjoint((*product.outputs, *i.outputs))
            and all(type(x) is Value and x.dtype in _TYPES for x in product.inputs)
            and all(len(x.shape) == 2 for x in product.values())
            and not overwritten.intersection(product.inputs)
            and written < before
        ):
            a, b = (transposed(v, product.where) for v in product.inputs)
            made.append(replace(product, inputs=(b, a), outputs=i.outputs))
            turned[i.outputs[0]] = made[-1]
        elif i.op is _POSITIVE and i.values()[0] in turned and uses[i.values()[0]] == 1:
            # The copy of what was a view, of which a sum begins.
            turned[i.values()[0]].outputs = i.outputs
        else:
            made.append(i)
        if i.written:
            written = at
    return program.copy(made)


def _is_transpose(i: Instruction) -> bool:
    return i.op is _PERMUTE and i.attrs.get("axes") == (1, 0)


class _Merge:
    """The pass over one program; ``program`` is what it makes."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._maker = {i.outputs[0]: i for i in program}
        self._uses = Counter(v for i in program for v in i.values())
        self._kept = set(program.kept())
        self._place = {i.outputs[0]: at for at, i in enumerate(program)}
        self._last_written = self._places_of_writing()
        self._overwritten = {v.before for i in program for v in i.outputs if v.before is not None}
        sums = self._sums()
        products = {
            root: taken for root, terms in sums.items() if (taken := self._products(root, terms))
        }
        if not products:
            return
        self._joined: dict[tuple[Value, ...], Value] = {}
        #: matrices that are joined, of which sums over rows are one sum
        self._rows_of = {self._factors(taken, 1) for taken in products.values()}
        for taken in products.values():
            firsts = self._factors(taken, 0)
            if all(map(self._is_transposed, firsts)):
                self._rows_of.add(tuple([self._maker[v].values()[0] for v in firsts]))
        self._number = max(v.number for v in program.values()) + 1
        self._made: list[Instruction] = []
        self._write(sums, products)
        self.program = program.copy(self._made)

    def _places_of_writing(self) -> list[int]:
        """For each instruction the place of the last before it that overwrites something."""
        found, last = [], -1
        for at, i in enumerate(self.program):
            found.append(last)
            if i.written:
                last = at
        return found

    # --- what is added up -------------------------------------------------------------------------

    def _is_sum(self, v: Value) -> bool:
        """Whether a value is the sum of two others of its shape."""
        i = self._maker.get(v)
        return (
            i is not None
            and i.op is _ADD
            and v.dtype in _TYPES
            and all(type(x) is Value and (x.shape, x.dtype) == (v.shape, v.dtype) for x in i.inputs)
        )

    def _is_inner(self, v: Value) -> bool:
        """Whether nobody but one instruction uses a value."""
        return self._uses[v] == 1 and v not in self._kept

    def _sums(self) -> dict[Value, list[Value]]:
        """Sums that are no part of another, and what they add up, in order."""
        inner: set[Value] = set()
        found: dict[Value, list[Value]] = {}
        for i in reversed(self.program.instructions):
            root = i.outputs[0]
            if root in inner or not self._is_sum(root):
                continue
            terms, left = [], [root]
            while left:
                v = left.pop()
                if v is root or (self._is_inner(v) and self._is_sum(v)):
                    inner.add(v)
                    left += reversed(self._maker[v].values())
                else:
                    terms.append(v)
            if len(terms) >= _FEWEST:
                found[root] = terms
        return found

    def _products(self, root: Value, terms: Sequence[Value]) -> list[Value]:
        """The terms that are to be one product: none, or several."""
        found = [v for v in terms if self._can_move(v, root, _MATMUL)]
        if len(found) < _FEWEST:
            return []
        m, n = root.shape
        read = sum((m + n) * self._maker[v].values()[1].shape[0] for v in found)
        # A loop's last step is the first of its backward pass. The other way round the first
        # factors mostly lie in order.
        return found[::-1] if read < m * n * len(found) else []

    def _can_move(self, v: Value, root: Value, op: Primitive) -> bool:
        """Whether a term is made by ``op``, and may be computed where its sum is."""
        i = self._maker.get(v)
        return (
            i is not None
            and i.op is op
            and self._is_inner(v)
            and all(type(x) is Value and x.dtype == v.dtype for x in i.inputs)
            and all(len(x.shape) == 2 for x in i.values())
            and not self._overwritten.intersection(i.inputs)
            and self._last_written[self._place[root]] < self._place[v]
        )

    # --- what takes their place -------------------------------------------------------------------

    def _write(self, sums: dict[Value, list[Value]], products: dict[Value, list[Value]]) -> None:
        for i in self.program:
            root = i.outputs[0]
            terms = sums.get(root, [])
            taken = products.get(root) or self._rows(root, terms)
            if not taken:
                self._made.append(i)
                continue
            merged = self._product(taken) if root in products else self._sum_of_rows(taken)
            gone = set(taken)
            left = [v for v in terms if v not in gone]  # they are added first, in order
            for v in left[1:]:
                left[0] = self._new(_ADD, (left[0], v), root.shape)
            if left:
                self._new(_ADD, (left[0], merged), root.shape)
            self._made[-1].outputs = [root]
            self._made[-1].where = i.where

    def _rows(self, root: Value, terms: Sequence[Value]) -> list[Value]:
        """The terms that are sums over the rows of matrices that are joined anyway."""
        found = [v for v in terms if len(v.shape) == 1 and self._can_move(v, root, SUM_TO)]
        return found[::-1] if found and self._factors(found[::-1], 0) in self._rows_of else []

    def _factors(self, terms: Sequence[Value], k: int) -> tuple[Value, ...]:
        return tuple([self._maker[v].values()[k] for v in terms])

    def _product(self, terms: Sequence[Value]) -> Value:
        """The sum of these products."""
        b = self._join(self._factors(terms, 1))
        a = self._join(tuple([self._transposed(v) for v in self._factors(terms, 0)]))
        return self._new(_MATMUL, (self._transposed(a), b), (a.shape[1], b.shape[1]))

    def _sum_of_rows(self, terms: Sequence[Value]) -> Value:
        """The sum of these sums over rows."""
        shape = terms[0].shape
        return self._new(SUM_TO, (self._join(self._factors(terms, 0)),), shape, {"shape": shape})

    def _transposed(self, v: Value) -> Value:
        """A matrix transposed, or what it is the transpose of."""
        if self._is_transposed(v):
            return self._maker[v].values()[0]
        if v.role == "constant":
            made = Value(self._number, v.shape[::-1], v.dtype, "constant", array=v.array.T.copy())
            self._number += 1
            return made
        return self._new(_PERMUTE, (v,), v.shape[::-1], {"axes": (1, 0)})

    def _is_transposed(self, v: Value) -> bool:
        i = self._maker.get(v)
        return i is not None and _is_transpose(i) and not self._overwritten.intersection(i.values())

    def _join(self, values: tuple[Value, ...]) -> Value:
        """Matrices one below the other."""
        if values not in self._joined:
            bounds = [0, *accumulate(v.shape[0] for v in values)]
            shape = bounds[-1], values[0].shape[1]
            attrs = {"axis": 0, "bounds": tuple(bounds)}
            self._joined[values] = self._new(_CONCAT, values, shape, attrs)
        return self._joined[values]

    def _new(
        self,
        op: Primitive,
        inputs: tuple[Value, ...],
        shape: tuple[int, ...],
        attrs: dict[str, object] | None = None,
    ) -> Value:
        made = Value(self._number, shape, inputs[0].dtype)
        self._number += 1
        self._made.append(Instruction(op, inputs, attrs or {}, [made]))
        return made
