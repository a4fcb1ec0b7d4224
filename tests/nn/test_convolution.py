"""Convolutions against PyTorch: random options, orders of gradients, layouts, dtypes, tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.nn import functional as F  # noqa: N812

torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")

Array = np.ndarray[Any, Any]


def laid_out(a: Array, rng: np.random.Generator) -> Array:
    """The same numbers, in another order of memory or with gaps."""
    kind = rng.integers(3)
    if kind == 0:
        return a
    if kind == 1:
        order = rng.permutation(a.ndim)
        return a.transpose(order).copy().transpose(np.argsort(order))
    big = np.full([2 * n for n in a.shape], np.nan)
    view = big[(slice(None, None, -2),) * a.ndim]
    view[...] = a
    return view


def some_call(rng: np.random.Generator, transpose: bool) -> tuple[int, list[Array], dict[str, Any]]:
    """The number of axes, the arrays and the options of a call that makes sense."""
    n = int(rng.integers(1, 4))

    def each(low: int, high: int) -> Any:
        found = [int(k) for k in rng.integers(low, high, n)]
        return found[0] if rng.random() < 0.3 else tuple(found)

    groups = int(rng.integers(1, 4))
    kernel = tuple(int(k) for k in rng.integers(1, 4, n))
    options = {"stride": each(1, 4), "dilation": each(1, 3), "groups": groups}
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, np.broadcast_to(options["dilation"], n))]
    options["padding"] = each(0, 3)
    if transpose:
        more = np.maximum(np.broadcast_to(options["stride"], n), options["dilation"])
        options["output_padding"] = tuple(int(rng.integers(0, m)) for m in more)
        options["padding"] = tuple(int(rng.integers(0, span // 2 + 1)) for span in spans)
    elif rng.random() < 0.3:
        options["padding"] = "same" if rng.random() < 0.5 else "valid"
        if options["padding"] == "same":
            options["stride"] = 1
    pads = 0 if isinstance(options["padding"], str) else options["padding"]
    sizes = [
        max(1, span - 2 * int(p)) + int(k)
        for span, p, k in zip(spans, np.broadcast_to(pads, n), rng.integers(3, 7, n))
    ]
    c, o, batch = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    channels, outputs = (o * groups, c * groups) if transpose else (c * groups, o * groups)
    arrays = [
        rng.standard_normal((batch, channels, *sizes)),
        rng.standard_normal((o * groups, c, *kernel)),
        rng.standard_normal(outputs),
    ]
    if rng.random() < 0.2:
        arrays[0] = arrays[0][0]
    return n, arrays, options


def close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    a, b = found.detach().numpy(), wanted.detach().numpy()
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("transpose", [False, True], ids=["conv", "conv_transpose"])
def test_values_and_gradients_of_two_orders_are_those_of_pytorch(transpose: bool) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, arrays, options = some_call(rng, transpose)
        name = f"conv{'_transpose' if transpose else ''}{n}d"
        ours = [Tensor(laid_out(a, rng), requires_grad=True) for a in arrays]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        y, z = getattr(F, name)(*ours, **options), getattr(torch.nn.functional, name)(
            *theirs, **options
        )  # fmt: skip
        close(y, z)
        w = rng.standard_normal(tuple(z.shape))
        first = grad((y * Tensor(w)).sum(), ours, create_graph=True)
        known = torch.autograd.grad((z * torch.tensor(w)).sum(), theirs, create_graph=True)
        for a, b in zip(first, known, strict=True):
            close(a, b)
        if not transpose or seed % 4 == 0:
            second = grad(sum((g * g * g).sum() for g in first[:2]), ours[:2])
            wanted = torch.autograd.grad(sum((g * g * g).sum() for g in known[:2]), theirs[:2])
            for a, b in zip(second, wanted, strict=True):
                close(a, b, 1e-9)
