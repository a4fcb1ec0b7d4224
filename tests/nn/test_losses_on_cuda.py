"""Losses and distances on the stand-in for CuPy: what they give on the CPU, gradients too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from nn.test_loss_functions import CASES
from sampler import host
from standin import cupy_standin

from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.nn import functional as F  # noqa: N812

RNG = np.random.Generator


@pytest.fixture(scope="module", autouse=True)
def _standin() -> Iterator[None]:
    with cupy_standin.installed(False):
        yield


def compared(
    function: Callable[..., Any], arrays: list[Any], options: dict[str, Any], twice: bool = False
) -> None:
    """Value and gradients by all floating arrays, of the second order if ``twice``."""
    found = []
    for device in ("cpu", "cuda"):
        given = [Tensor(a, device=device, requires_grad=a.dtype == np.float64) for a in arrays]
        there = {
            k: Tensor(v.copy(), device=device) if isinstance(v, np.ndarray) else v
            for k, v in options.items()
        }
        y = function(*given, **there)
        assert y.device.startswith(device)
        leaves = [x for x in given if x.requires_grad]
        slopes = list(grad(y.sum(), leaves, create_graph=twice))
        if twice:
            squares = [(g * g).sum() for g in slopes]
            slopes += grad(sum(squares[1:], squares[0]), leaves)
        assert all(g.device.startswith(device) for g in slopes)
        found.append([host(y), *map(host, slopes)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_losses(case: str, rng: RNG) -> None:
    name, options, draw = CASES[case]
    compared(getattr(F, name), draw(rng), options)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, np.inf])
def test_distances(p: float, rng: RNG) -> None:
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    compared(F.cdist, [a, b], {"p": p})
    compared(F.pdist, [a], {"p": p})
    if p:
        compared(F.pairwise_distance, [a, b[0]], {"p": p})
    compared(F.cdist, [a, b], {"compute_mode": "use_mm_for_euclid_dist"})


@pytest.mark.parametrize("joined", [False, True])
def test_alignments_to_the_second_order(joined: bool, rng: RNG) -> None:
    x, lengths = rng.standard_normal((5, 2, 3)), [np.array([5, 4]), np.array([2, 1])]
    targets = np.array([1, 1, 2]) if joined else np.array([[1, 1], [2, 0]])
    compared(F.ctc_loss, [x, targets, *lengths], {}, twice=True)
