"""Images flattened before a product, in the order in which they lie, give what they did."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program.captured import Captured, recorded
from program.vector_widths import WIDTHS, built

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import conv1d, conv2d, linear, max_pool2d
from tensorgrad.program.fusion import fuse
from tensorgrad.program.passes import simplified

Array = np.ndarray[Any, np.dtype[Any]]
Step = Callable[..., list[Tensor]]


def images(x: Tensor, k: Tensor) -> Tensor:
    """What is flattened: images whose channels lie last in a program."""
    return max_pool2d(tg.relu(conv2d(x, k, padding=1)), 2)


def plain(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    y = linear(images(x, k).reshape(len(x), -1), w)
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def without_a_pool(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    y = linear(tg.relu(conv2d(x, k[..., :2, :2], stride=2)).reshape(len(x), -1), w)
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def of_one_axis(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    y = linear(conv1d(x[:, :, 0, :], k[:, :, 0, :]).reshape(len(x), -1), w[:, :10])
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def with_a_bias(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    y = linear(images(x, k).reshape(len(x), -1), w, w[:, 0])
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def only_forward(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    with tg.no_grad():
        return [linear(images(x, k).reshape(len(x), -1), w)]


def shared_weights(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    """Of two layers, one of which has no images."""
    flat = images(x, k).reshape(len(x), -1)
    y = linear(flat, w) + linear(x.reshape(len(x), -1)[:, : w.shape[1]], w)
    y = y * linear(images(x * 2.0, k).reshape(len(x), -1), w)
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def weights_used_before(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    """Products with the same weights become images before the layer and after it."""
    first = (x[:, 0, 0, : w.shape[0]] @ w).reshape(len(x), len(k), 3, 2)
    y = linear(images(x, k).reshape(len(x), -1), w)
    last = (y @ w).reshape(len(x), len(k), 3, 2)
    return [first, last, y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def flat_is_seen(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    flat = images(x, k).reshape(len(x), -1)
    y = linear(flat, w)
    return [flat, y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def flat_is_read(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    flat = images(x, k).reshape(len(x), -1)
    y = linear(flat, w) + flat[:, : w.shape[0]]
    return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [x, k, w])]


def with_itself(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    flat = images(x, k).reshape(len(x), -1)
    return [linear(flat, flat), linear(images(x + 1.0, k).reshape(len(x), -1), w)]


def twice(x: Tensor, k: Tensor, w: Tensor) -> list[Tensor]:
    y = linear(images(x, k).reshape(len(x), -1), w)
    found = tg.autograd.grad(tg.sum(y * y), [x, k, w], create_graph=True)
    total = tg.sum(found[1] * found[1]) + tg.sum(found[2] * found[2])
    return [*found, *tg.autograd.grad(total, [x, k, w])]


TURNED = [plain, without_a_pool, of_one_axis, with_a_bias, only_forward, shared_weights,
          weights_used_before]  # fmt: skip
OTHERS = [flat_is_seen, flat_is_read, with_itself, twice]


def given(seed: int = 0, dtype: Any = np.float32) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    shapes = [(7, 3, 6, 4), (5, 3, 3, 3), (3, 30)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    kind = tg.float64 if dtype is np.float64 else tg.float32
    return [Tensor(a, dtype=kind, requires_grad=True) for a in arrays]


def columns_are_moved(step: Step, tensors: list[Tensor]) -> bool:
    """Whether the weights' columns were put in the order of the images."""
    program = simplified(recorded(step, tensors))
    return any(i.op.name == "transposed_rows" for i in program)


@pytest.mark.parametrize("step", [*TURNED, *OTHERS])
def test_results_and_gradients_are_those_of_float64(step: Step) -> None:
    singles = given()
    program = Captured(step, singles)
    eager, exact = step(*singles), step(*given(0, np.float64))
    for a, b, e in zip(program(*singles), eager, exact, strict=True):
        b, e = b.detach(), e.detach()
        scale = abs(e.numpy()).max()
        error = abs(b.numpy() - e.numpy()).max() / scale
        assert abs(np.asarray(a) - e.numpy()).max() / scale <= max(4 * error, 2e-6)


@pytest.mark.parametrize("step", TURNED)
def test_the_weights_are_turned_around(step: Step) -> None:
    assert columns_are_moved(step, given())


@pytest.mark.parametrize("step", [flat_is_seen, flat_is_read])
def test_what_others_see_stays_in_its_order(step: Step) -> None:
    assert not columns_are_moved(step, given())


def test_no_activation_is_copied_to_be_flattened() -> None:
    text = "".join(Captured(plain, given()).executor.lines())
    assert "layout.transposed_rows to [3, 30]" in text  # the weights
    assert "nest [7, 5, 3, 2]" not in text
    text = "".join(Captured(only_forward, given()).executor.lines())
    assert "nest [7, 5, 3, 2]" not in text


def test_weights_larger_than_the_images_stay() -> None:
    x, k, w = given()
    assert not columns_are_moved(plain, [x[:2], k, w])


def test_a_step_that_overwrites_the_weights_is_that_of_eager_mode() -> None:
    x, k, w = given()
    other = [Tensor(t.detach().numpy().copy(), requires_grad=True) for t in (k, w)]

    def train(k: Tensor, w: Tensor, optimizer: Any) -> Tensor:
        y = linear(images(x.detach(), k).reshape(len(x), -1), w)
        loss = tg.mean(y * y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    first, second = tg.optim.SGD([k, w], lr=1e-3), tg.optim.SGD(other, lr=1e-3)
    run = tg.compile(lambda: train(k, w, first))
    for _ in range(5):
        np.testing.assert_allclose(
            run().item(), train(other[0], other[1], second).item(), rtol=1e-5
        )
    assert not run.dropped
    np.testing.assert_allclose(w.detach().numpy(), other[1].detach().numpy(), rtol=1e-4, atol=1e-6)
    assert other[1].grad is not None
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), other[1].grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_program_that_shares_memory_is_left_alone() -> None:
    program = recorded(plain, given())
    program.aliased = True
    assert fuse(program) is program


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("high", "wide"), [(49, 32), (5, 64), (33, 17), (2, 3), (16, 16)])
def test_rows_are_transposed_by_vectors_of_any_width(
    high: int, wide: int, width: int, tmp_path: Path
) -> None:
    text = (
        f'#include "layout.h"\nvoid run(float *x, float *y) {{ tg_transposed_rows({high}, {wide}, '
        "x, y, 1, 4); }\n"
    )
    x = np.arange(5 * high * wide, dtype=np.float32)
    y = np.full_like(x, -1)
    library: Any = built(text, width, tmp_path)
    library.run(*[ctypes.c_void_p(a.ctypes.data) for a in (x, y)])
    wanted = x.reshape(5, high, wide).transpose(0, 2, 1).copy()
    wanted[[0, 4]] = -1
    np.testing.assert_array_equal(y, wanted.reshape(-1))
