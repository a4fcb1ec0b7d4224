"""kernels/attention.cu: values and gradients against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import EPSILON, Cuda, as_float64

import tensorgrad as tg
from tensorgrad.nn.functional import scaled_dot_product_attention as attend


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """One with warps by themselves and one with all threads by chance."""
    if not cuda.real and emulator.schedule not in (1, 4):
        pytest.skip("two schedules")


DTYPES = ("float16", "bfloat16", "float32")
Array = np.ndarray[Any, Any]


def expected(
    q: Array, k: Array, v: Array, mask: Any = None, causal: bool = False, scale: Any = None,
    kept: Any = 1.0,
) -> Array:  # fmt: skip
    """In float64, from the matrix of scores."""
    s = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    seen: Any = np.tri(*s.shape[-2:], dtype=bool) if causal else np.True_
    if mask is not None and mask.dtype == bool:
        seen = seen & mask
    elif mask is not None:
        s = s + mask
    s = np.where(seen, s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-1e300)
    e = np.exp(s - top)
    sums = e.sum(-1, keepdims=True)
    return e / np.where(sums == 0, 1, sums) * kept @ v


def rounded(x: Array, dtype: str) -> Array:
    """As the device has them, in float64."""
    return as_float64(tg.tensor(x, dtype=getattr(tg, dtype)))


def close(found: Any, wanted: Array, dtype: str) -> None:
    """Within rounding of what the largest number is made of."""
    found = as_float64(found)
    assert found.shape == wanted.shape
    bound = (24 if dtype == "float32" else 6) * EPSILON[dtype] * max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


SHAPES = [
    ((2, 3, 70, 16), (2, 3, 33, 16), (2, 3, 33, 24)),  # in packs
    ((1, 5, 7), (2, 67, 7), (2, 67, 3)),  # not in packs; queries for two heads
    ((2, 2, 17, 72), (2, 1, 129, 72), (2, 1, 129, 128)),  # many features; a head shared
    ((1, 1), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(
    cuda: Cuda, dtype: str, shapes: Any, causal: bool, rng: np.random.Generator
) -> None:
    q, k, v = (rounded(rng.normal(size=shape), dtype) for shape in shapes)
    x, y, z = (cuda.tensor(a, dtype) for a in (q, k, v))
    features = 64 if max(q.shape[-1], v.shape[-1]) <= 64 else 128
    close(attend(x, y, z, is_causal=causal), expected(q, k, v, causal=causal), dtype)
    assert cuda.launched == {f"attention_forward_{features}": 1}  # values


def masks(rng: np.random.Generator, rows: int, columns: int) -> dict[str, Array]:
    seen = rng.random((2, 1, rows, columns)) < 0.5
    seen[:, :, 1] = False  # it sees nothing
    hidden = np.where(seen[1, 0], 0.5 * rng.integers(-4, 5, (rows, columns)), -np.inf)
    return {"truth": seen, "keys": rng.random((2, 1, 1, columns)) < 0.7, "added": hidden}


@pytest.mark.parametrize("kind", ["truth", "keys", "added"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(cuda: Cuda, dtype: str, kind: str, rng: np.random.Generator) -> None:
    q, k, v = (rounded(rng.normal(size=(2, 3, n, 8)), dtype) for n in (19, 70, 70))
    mask = masks(rng, 19, 70)[kind]
    x, y, z = (cuda.tensor(a, dtype) for a in (q, k, v))
    for causal in (False, True):
        found = attend(x, y, z, tg.tensor(mask, device="cuda"), is_causal=causal)
        close(found, expected(q, k, v, mask, causal), dtype)
    assert cuda.launched == {"attention_forward_64": 2}
