"""Tensors in einops: its functions reshape, reduce, repeat and join them, with gradients.

einops looks for a subclass of its ``AbstractBackend`` whose library is loaded. The one here is made
as soon as both are: at once if einops was imported before, else right behind its import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tensorgrad import dtypes, ops
from tensorgrad.tensor import Tensor

_WHERE = "einops._backends"


def _register(backends: Any) -> type:
    """Make the class, which einops finds as a subclass of its own."""

    class TensorgradBackend(backends.AbstractBackend):  # type: ignore[misc]
        """What einops asks of a library, by our operations."""

        framework_name = "tensorgrad"

        def is_appropriate_type(self, tensor: Any) -> bool:
            """Whether it is a tensor of ours."""
            return isinstance(tensor, Tensor)

        def from_numpy(self, x: Any) -> Tensor:
            """An array as a tensor."""
            return Tensor(x)

        def to_numpy(self, x: Tensor) -> Any:
            """The numbers of a tensor."""
            return x.detach().cpu().numpy()

        def arange(self, start: int, stop: int) -> Tensor:
            """Integers from ``start`` to before ``stop``."""
            return ops.arange(start, stop)

        def stack_on_zeroth_dimension(self, tensors: Sequence[Tensor]) -> Tensor:
            """Tensors joined along a new first axis."""
            return ops.stack(tensors)

        def add_axis(self, x: Tensor, new_position: int) -> Tensor:
            """A new axis of size 1."""
            return ops.expand_dims(x, new_position)

        def tile(self, x: Tensor, repeats: Sequence[int]) -> Tensor:
            """Copies side by side."""
            return ops.tile(x, tuple(repeats))

        def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
            """Tensors joined along an axis."""
            return ops.concat(tensors, axis=axis)

        def is_float_type(self, x: Tensor) -> bool:
            """Whether a mean is one of the dtype."""
            return x.dtype in dtypes.INEXACT

        def einsum(self, pattern: str, *x: Tensor) -> Tensor:
            """The sum of products in Einstein's notation."""
            return ops.einsum(pattern, *x)

    return TensorgradBackend


class _AfterEinops:
    """Loads the module with einops' backends as others would, and makes ours behind it.

    A finder and a loader by its methods: importing their abstract classes costs a fifth of the
    time that importing this package takes.
    """

    def __init__(self) -> None:
        self._loader: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib``; asked for every import, so that it must be quick."""
        if fullname != _WHERE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            self._loader = spec.loader
            spec.loader = self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``importlib``."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib``."""
        self._loader.exec_module(module)
        module.__dict__["_tensorgrad"] = _register(module)  # a class lives while it is known


def watch() -> None:
    """Register now if einops is loaded, else when it is."""
    backends = sys.modules.get(_WHERE)
    if backends is None:
        sys.meta_path.insert(0, _AfterEinops())
    elif not hasattr(backends, "_tensorgrad"):
        backends.__dict__["_tensorgrad"] = _register(backends)
