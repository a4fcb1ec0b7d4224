"""kernels/recurrence.cu: LSTM and GRU on a GPU against the CPU, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.backend.launch import common
from tensorgrad.nn import functional


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda) -> None:
    """Threads work alone in these kernels: two schedules tell what six would."""
    if not cuda.real and emulator.schedule not in (0, 3):
        pytest.skip("threads do not wait for each other")


GATES = {"lstm": 4, "gru": 3}
KINDS = ["lstm", "gru"]


def leaf(values: Any, dtype: str, device: str) -> tg.Tensor | None:
    if values is None:
        return None
    return tg.tensor(values, dtype=getattr(tg, dtype), device=device, requires_grad=True)


def check(
    kind: str, rng: np.random.Generator, dtype: str = "float32", steps: int = 4, batch: int = 3,
    features: int = 5, hidden: int = 8, biases: str = "both", states: bool = True, **options: Any,
) -> None:  # fmt: skip
    """Values and the gradients of all inputs, on both devices."""
    rows = GATES[kind] * hidden
    given: dict[str, Any] = {
        "x": rng.normal(size=(steps, batch, features)), "w_ih": rng.normal(size=(rows, features)),
        "w_hh": rng.normal(size=(rows, hidden)) * 0.5,
        "b_ih": rng.normal(size=rows) if biases in ("both", "ih") else None,
        "b_hh": rng.normal(size=rows) if biases in ("both", "hh") else None,
    }  # fmt: skip
    for name in ("h0", "c0")[: 2 if kind == "lstm" else 1]:
        given[name] = rng.normal(size=(batch, hidden)) if states else None
    g = [rng.normal(size=(steps, batch, hidden)), *rng.normal(size=(2, batch, hidden))]
    found = []
    for device in ("cuda", "cpu"):
        inputs = [leaf(v, dtype, device) for v in given.values()]
        outputs = getattr(functional, kind)(*inputs, **options)
        loss = sum(
            (y * tg.tensor(w, dtype=y.dtype, device=device)).sum() for y, w in zip(outputs, g)
        )
        loss.backward()
        found.append((outputs, [a.grad for a in inputs if a is not None]))
    for ours, theirs in zip(*([*f[0], *f[1]] for f in found), strict=True):
        scale = float(np.abs(as_float64(theirs)).max(initial=1.0))
        assert_close(ours, as_float64(theirs), dtype, rounding=24, scale=scale)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(cuda: Cuda, kind: str, dtype: str, rng: np.random.Generator) -> None:
    for hidden in (8, 5):  # in packs, and not
        check(kind, rng, dtype, hidden=hidden)
    assert cuda.launched[f"{kind}_forward"] == cuda.launched[f"{kind}_backward"] == 8


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_what_may_be_missing(
    cuda: Cuda, kind: str, reverse: bool, rng: np.random.Generator
) -> None:
    check(kind, rng, lengths=[4, 1, 2], reverse=reverse)
    check(kind, rng, lengths=[2, 4, 1], reverse=reverse, states=False, hidden=3)
    for biases in ("ih", "hh", "none"):
        check(kind, rng, biases=biases, states=biases == "ih", reverse=reverse)
    check(kind, rng, steps=1, batch=1, states=False)
    assert set(cuda.launched) - {"sum_strips", "sum_rows"} == {
        f"{kind}_forward",
        f"{kind}_backward",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_steps_through_the_grid(
    cuda: Cuda, kind: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    check(kind, rng, batch=20, hidden=60, steps=2)
    check(kind, rng, batch=20, hidden=61, steps=2)


@pytest.mark.parametrize("kind", KINDS)
def test_two_launches_a_step(cuda: Cuda, kind: str) -> None:
    """Of kernels one, and one of a product."""
    from standin.cupy_standin import log

    if cuda.real:
        pytest.skip("the stand-in counts")
    x = tg.zeros((9, 4, 8), device="cuda")
    rows = GATES[kind] * 8
    w_ih, w_hh = (tg.zeros((rows, 8), device="cuda") for _ in range(2))
    counts = []
    for steps in (5, 9):
        log.clear()
        getattr(functional, kind)(x[:steps], w_ih, w_hh)
        counts.append(log.launches)
    assert cuda.launched[f"{kind}_forward"] == 14
    assert counts[1] - counts[0] == 2 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_second_order_and_switching_off(
    cuda: Cuda, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is what the loops know, whoever computed it."""
    from tensorgrad.backend.cuda import load

    rng = np.random.default_rng(0)
    rows = GATES[kind] * 3
    inputs = [
        leaf(rng.normal(size=s), "float64", "cuda") for s in ((3, 2, 4), (rows, 4), (rows, 3))
    ]
    x: Any = inputs[0]

    def loss() -> Any:
        return (getattr(functional, kind)(*inputs)[0] ** 2).sum()

    y = loss()
    (plain,) = tg.autograd.grad(y, x, retain_graph=True)
    with monkeypatch.context() as patch:
        patch.setattr(load(), "kernels", False)
        (other,) = tg.autograd.grad(y, x)
        z = loss()
    (mixed,) = tg.autograd.grad(z, x)
    (first,) = tg.autograd.grad(loss(), x, create_graph=True)
    for found in (other, mixed, first):
        np.testing.assert_allclose(as_float64(found), as_float64(plain), rtol=1e-10, atol=1e-12)
