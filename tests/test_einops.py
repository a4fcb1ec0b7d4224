"""einops knows tensors, whichever of the two is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor

#: What einops has for libraries to register with: its own file of that name, in short.
STAND_IN = """
class AbstractBackend:
    framework_name: str

    def reshape(self, x, shape):
        return x.reshape(shape)

    def transpose(self, x, axes):
        return x.transpose(axes)


def get_backend(x):
    import sys

    for kind in AbstractBackend.__subclasses__():
        if kind.framework_name in sys.modules and kind().is_appropriate_type(x):
            return kind()
    raise RuntimeError("unknown")
"""
PROGRAM = """
{first}
{second}
x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
backend = einops._backends.get_backend(x)
assert not backend.is_appropriate_type([1.0])
assert backend.is_float_type(x) and not backend.is_float_type(backend.arange(0, 3))
assert backend.to_numpy(backend.from_numpy(backend.to_numpy(x))).tolist() == x.tolist()
y = backend.stack_on_zeroth_dimension([x, x])
y = backend.concat([y, backend.add_axis(x, 0)], 0)
y = backend.tile(backend.transpose(y, (1, 0, 2)), (1, 2, 1))
y = backend.einsum("ijk,ik->i", backend.reshape(y, (2, 6, 2)), x)
y.sum().backward()
assert x.grad.tolist() == [[12.0, 24.0], [36.0, 48.0]]
"""


@pytest.mark.parametrize("tensors_first", [True, False])
def test_the_class_is_made_when_both_are_loaded(tmp_path: Path, tensors_first: bool) -> None:
    package = tmp_path / "einops"
    package.mkdir()
    (package / "__init__.py").write_text("from . import _backends\n")
    (package / "_backends.py").write_text(STAND_IN)
    lines = ["import tensorgrad as tg", "import einops"]
    first, second = lines if tensors_first else reversed(lines)
    root = str(Path(tg.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, second=second)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"}, check=True,
    )  # fmt: skip


CALLS: list[Callable[[Any, Any], Any]] = [
    lambda e, x: e.rearrange(x, "a b c -> (a b) c"),
    lambda e, x: e.rearrange([x, x], "q a b c -> a (q b) c"),
    lambda e, x: e.reduce(x, "a b c -> b", "mean"),
    lambda e, x: e.reduce(x, "a (b 1) c -> c", "max"),
    lambda e, x: e.reduce(x, "a b c -> a", "prod"),
    lambda e, x: e.repeat(x, "a b c -> a b c d", d=2),
    lambda e, x: e.einsum(x, x, "a b c, a d c -> b d"),
    lambda e, x: e.pack([x, x], "a * c")[0],
    lambda e, x: e.unpack(x, [(1,), (2,)], "a * c")[1],
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_its_functions(number: int) -> None:
    einops = pytest.importorskip("einops", reason="its own functions")
    a = np.random.default_rng(0).standard_normal((2, 3, 4))
    x = Tensor(a, requires_grad=True)
    y = CALLS[number](einops, x)
    np.testing.assert_allclose(host(y), CALLS[number](einops, a))
    assert y.requires_grad
