"""The functions that value functions need beyond those that NumPy and CuPy share.

A value function is called as ``value(xp, *arrays, **attrs)`` with one of three array namespaces:
NumPy, CuPy, or one of the engine's own, whose arrays write down what is computed so that it can be
turned into loops (``program/symbolic.py``). What has no name that all three know is a function of
``xp`` in this package, which asks ``isinstance(xp, Namespace)`` and computes it itself for the
other two: ``special.erf``, ``activations.sigmoid``, ``sums.length``, ``philox.words``. A row whose
value checks what it is given, or whose loops are better written otherwise, has ``loops=``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Namespace:
    """An array namespace of the engine's own: NumPy's names, and these besides."""

    #: whether the arrays lie in the host's memory, where a program can stop in the middle
    on_host: bool = True

    def refuse(self, reason: str) -> Any:
        """Say why what is computed cannot be turned into loops. Does not return."""
        raise NotImplementedError

    def order_of(self, x: Any) -> list[int] | None:
        """The axes as they lie in memory, where a routine chose another order than theirs."""
        return None

    def put_back(self, x: Any, order: Sequence[int]) -> Any:
        """``x``, whose axes are in this order, with the axes in their own one."""
        raise NotImplementedError

    def erf(self, x: Any) -> Any:
        """The error function, elementwise."""
        raise NotImplementedError

    def sigmoid(self, x: Any) -> Any:
        """``1 / (1 + exp(-x))``, elementwise."""
        raise NotImplementedError

    def root_of_squares(self, xs: Any, axis: tuple[int, ...] | None, keepdims: bool) -> Any:
        """The root of the sum of all squares, also where these are out of range."""
        raise NotImplementedError

    def number(self, x: Any) -> Any:
        """A 0-d array as a number, which takes on the dtype of what it meets, as Python's do."""
        raise NotImplementedError

    def random_words(self, key: Any, position: Any, shape: tuple[int, ...], step: int = 1) -> Any:
        """Every ``step``-th word of the random stream ``key`` from ``position`` on, as uint32."""
        raise NotImplementedError

    def check_labels(self, labels: Any, classes: int) -> None:
        """Stop, before anything is changed, unless the labels lie in [0, classes)."""
        raise NotImplementedError

    def row_numbers(self, indices: Any, n: int) -> Any:
        """Indices along the first axis, of size ``n``: as int64, counted from the front.

        Stops, before anything is changed, if one is out of range.
        """
        raise NotImplementedError

    def linear_recurrence(self, a: Any, b: Any, axis: int, reverse: bool) -> Any:
        """``y[i] = a[i] * y[i - 1] + b[i]`` along an axis, from ``y[0] = b[0]``, or backwards."""
        raise NotImplementedError

    def routine(
        self,
        name: str,
        sizes: Any,
        inputs: Any,
        outputs: Any,
        size: int = 1,
        piece: int = 1,
        cost: int = 1,
    ) -> list[Any]:
        """New arrays that a C function of programs fills; see ``program.symbolic``."""
        raise NotImplementedError

    def matmul(self, a: Any, b: Any) -> Any:
        """``a @ b``, as in NumPy."""
        raise NotImplementedError
