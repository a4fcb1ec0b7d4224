"""Attention of programs: routines in C, against the same attention in float64."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.vector_widths import WIDTHS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import cross_entropy
from tensorgrad.nn.functional import scaled_dot_product_attention as attend
from tensorgrad.nn.models import GPT
from tensorgrad.optim import AdamW
from tensorgrad.program import compiler

Array = np.ndarray[Any, np.dtype[Any]]


def lain(rng: np.random.Generator, x: Array) -> Array:
    """``x`` with its axes in some order in memory, or within a larger array."""
    way = int(rng.integers(4))
    if way == 1:
        order = rng.permutation(x.ndim)
        return x.transpose(order).copy().transpose(np.argsort(order))
    if way == 2:
        return np.concatenate([x, x + 1], axis=-1)[..., : x.shape[-1]]
    return x[..., ::-1, :].copy()[..., ::-1, :] if way == 3 else x


def drawn(rng: np.random.Generator) -> tuple[list[Array], dict[str, Any]]:
    """Queries, keys and values drawn at random, and options."""
    heads = tuple(map(int, rng.integers(1, 4, int(rng.integers(0, 4)))))
    rows, keys = (int(rng.choice([4, 5, 16, 33, 70, 150])) for _ in range(2))
    d, e = (int(rng.choice([1, 4, 16, 24, 33, 64])) for _ in range(2))
    options: dict[str, Any] = {"is_causal": bool(rng.random() < 0.5)}
    shared = heads
    if len(heads) > 1 and rng.random() < 0.3:
        options["enable_gqa"], heads = True, (*heads[:-1], 2 * heads[-1])
    elif heads and rng.random() < 0.3:
        shared = (*heads[:-1], 1)
    shapes = [(*heads, rows, d), (*shared, keys, d), (*shared, keys, e)]
    kind = int(rng.integers(4))
    if kind:
        shape = [(rows, keys), (*heads, rows, 1), (1, keys)][int(rng.integers(3))]
        mask = rng.standard_normal(shape)
        options["attn_mask"] = mask > -0.5
        if kind > 1:
            mask[rng.random(shape) < 0.2] = -np.inf
            options["attn_mask"] = mask
    return [lain(rng, rng.standard_normal(shape)) for shape in shapes], options


@pytest.mark.parametrize("seed", range(10))
def test_values_and_gradients_are_those_of_float64(seed: int) -> None:
    """Any shapes, masks and layouts; queries that see no key among them."""
    rng = np.random.default_rng(seed)
    given, options = drawn(rng)
    mask = options.pop("attn_mask", None)
    given = [a.astype(np.float32, order="K") for a in given]
    given += [np.asarray(rng.standard_normal(given[2].shape[-1]), np.float32)]
    if mask is not None:
        given += [mask.astype(np.float32) if mask.dtype == np.float64 else mask]

    def step(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mask: Any = None) -> list[Tensor]:
        y = attend(q, k, v, mask, **options)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y * w), [q, k, v])]

    def tensors(dtype: Any) -> list[Tensor]:
        xs = [a.astype(dtype, order="K") if a.dtype != bool else a for a in given]
        return [Tensor(a, requires_grad=n < 3) for n, a in enumerate(xs)]

    singles = tensors(np.float32)
    wanted = step(*tensors(np.float64))
    for found, eager, exact in zip(Captured(step, singles)(*singles), step(*singles), wanted):
        scale = abs(exact.numpy()).max() + 1e-30
        error = abs(eager.numpy() - exact.numpy()).max() / scale
        assert abs(found - exact.numpy()).max() / scale <= max(4 * error, 2e-6)


def results_of(step: Any, arrays: list[Array], gradients: int = 3) -> tuple[Any, list[Any]]:
    """What a program returns, and what the function does."""
    tensors = [Tensor(a, requires_grad=n < gradients) for n, a in enumerate(arrays)]
    captured = Captured(step, tensors)
    assert "attention.h" in captured.executor.source.text
    return captured(*tensors), [y.numpy() for y in step(*tensors)]


def self_attention(is_causal: bool = False) -> Any:
    """A step that returns the value and all gradients."""

    def step(q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> list[Tensor]:
        y = attend(q, k, v, mask, is_causal=is_causal)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [q, k, v])]

    return step


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinities_and_nan_are_where_eager_mode_has_them() -> None:
    """In what is seen, in scores that grow beyond all floats, and in gradients."""
    rng = np.random.default_rng(1)
    for place, bad in ((0, np.nan), (1, np.inf), (2, np.nan), (0, 1e30), (2, np.inf)):
        arrays = [normal(rng, 2, n, 16) for n in (40, 70, 70)]
        arrays[place][1, 33, 5] = bad
        found, wanted = results_of(self_attention(), arrays)
        for a, b in zip(found, wanted):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=f"{place} {bad}")
            np.testing.assert_array_equal(np.isinf(a), np.isinf(b), err_msg=f"{place} {bad}")
            assert np.isfinite(a[0]).all()  # the other head knows nothing of it


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["truth values", "floats"])
def test_what_nobody_sees_does_nothing(kind: str) -> None:
    """Neither do queries that see no key, whatever lies there: zeros, and no gradient."""
    rng = np.random.default_rng(2)
    arrays = [normal(rng, 2, n, 24) for n in (50, 90, 90)]
    seen = rng.random((50, 90)) < 0.5
    seen[7] = seen[31] = False
    arrays[0][:, 7], arrays[0][:, 31] = np.nan, np.inf
    mask = seen if kind == "truth values" else np.where(seen, 0, -np.inf).astype(np.float32)
    found, wanted = results_of(self_attention(), [*arrays, mask])
    if kind == "truth values":  # NaN and -inf are NaN, which is no score
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        assert not found[0][:, [7, 31]].any()
        assert not found[1][:, [7, 31]].any()
    else:
        np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(wanted[0]))


def test_later_keys_do_nothing() -> None:
    """Behind the last query nothing is read: what lies there may be anything."""
    rng = np.random.default_rng(3)
    arrays = [normal(rng, 3, n, 16) for n in (20, 100, 100)]
    arrays[1][:, 33:], arrays[2][:, 33:] = np.nan, np.inf
    found, _ = results_of(self_attention(is_causal=True), arrays)
    arrays[1][:, 33:], arrays[2][:, 33:] = 0, 0
    _, wanted = results_of(self_attention(is_causal=True), arrays)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-5)
    assert not found[2][:, 33:].any()
    assert not found[3][:, 33:].any()


def test_large_scores() -> None:
    """Of thousands, where exponentials without the largest would be infinite."""
    rng = np.random.default_rng(4)
    arrays = [normal(rng, 4, n, 32) * 30 for n in (64, 300, 300)]
    found, wanted = results_of(self_attention(), arrays)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * abs(b).max())


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_the_same_weights_are_dropped(rate: float) -> None:
    rng = np.random.default_rng(5)
    arrays = [normal(rng, 2, 3, n, 16) for n in (33, 50, 50)]

    def step(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        y = attend(q, k, v, dropout_p=rate, is_causal=True)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [q, k, v])]

    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    compiled = tg.compile(step, executor="native")
    for seed in range(3):
        results = []
        for call in (compiled, step):
            tg.manual_seed(seed)
            results.append([x.numpy().copy() for x in call(*tensors)])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert compiled.executor == "native", compiled.report()
    assert compiled.captures == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1)], ids=str)
def test_gradients_of_slices_are_made_where_they_are_wanted(order: tuple[int, ...]) -> None:
    """Queries, keys and values that are projected at once: no copy between the gradients' routine
    and the products with them, if they lie in that order."""
    rng = np.random.default_rng(11)
    given = [normal(rng, 2, 40, 48), normal(rng, 48, 144) / 7, normal(rng, 2, 40, 48)]

    def step(x: Tensor, w: Tensor, c: Tensor) -> list[Tensor]:
        y = x @ w
        q, k, v = (
            y[..., 48 * n : 48 * n + 48].reshape(2, 40, 3, 16).transpose(0, 2, 1, 3) for n in order
        )
        z = attend(q, k, v, is_causal=True).transpose(0, 2, 1, 3).reshape(2, 40, 48)
        return [z.detach(), *tg.autograd.grad(tg.sum(z * z * c), [x, w])]

    singles = [Tensor(a, requires_grad=n < 2) for n, a in enumerate(given)]
    captured = Captured(step, singles)
    wanted = step(*[Tensor(x.data.astype(np.float64), requires_grad=True) for x in singles])
    for found, exact in zip(captured(*singles), wanted, strict=True):
        np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=1e-5)
    (units,) = captured.executor.source.parts
    at = next(k for k, unit in enumerate(units) if "attention_gradient" in unit)
    assert units[at + 1].startswith("product" if order == (0, 1, 2) else "nest"), units


def test_bits_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    tensors = [Tensor(normal(rng, 2, 150, 16), requires_grad=True) for _ in range(3)]
    results = []
    for count in (1, 2):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        captured = Captured(self_attention(is_causal=True), tensors)
        assert captured.executor.threads == count
        results.append([y.copy() for y in captured(*tensors)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_gradients() -> None:
    rng = np.random.default_rng(7)
    arrays = [normal(rng, 2, n, 8) for n in (12, 20, 20)]

    def step(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        y = attend(q, k, v, is_causal=True)
        first = tg.autograd.grad(tg.sum(y * y), [q, k, v], create_graph=True)
        total = tg.sum(first[0] ** 2) + tg.sum(first[1] ** 2) + tg.sum(first[2] ** 2)
        return list(tg.autograd.grad(total, [q, k, v]))

    found, wanted = results_of(step, arrays)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4 * abs(b).max())


def test_memory_does_not_grow_with_the_product_of_lengths() -> None:
    rng = np.random.default_rng(8)
    tensors = [Tensor(normal(rng, 2, 600, 16), requires_grad=True) for _ in range(3)]
    captured = Captured(self_attention(is_causal=True), tensors)
    assert captured.executor.arena_bytes < 16 * tensors[0].data.nbytes


@pytest.mark.parametrize("width", [8, 4])
def test_narrower_vectors_give_the_same(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are the widths of x86")
    rng = np.random.default_rng(9)
    arrays = [normal(rng, 2, n, size) for n, size in ((37, 20), (145, 20), (145, 33))]
    seen = rng.random((37, 145)) < 0.8
    seen[5] = False
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, *WIDTHS[width]))
    found, wanted = results_of(self_attention(), [*arrays, seen])
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_a_gpt_learns_as_in_eager_mode() -> None:
    """Attention, norms, GELU, products and look-ups in one program: the losses of some steps."""
    rng = np.random.default_rng(10)
    tokens = rng.integers(0, 30, (4, 41))
    x, t = Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:].reshape(-1))
    losses: list[list[float]] = []
    for compiled in (True, False):
        tg.manual_seed(1)
        model = GPT(30, 40, n_layer=1, n_head=2, n_embd=32)
        optimizer = AdamW(model.parameters(), lr=1e-2)

        def step(x: Tensor, t: Tensor, model: Any = model, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x).reshape(-1, 30), t)
            loss.backward()
            optimizer.step()
            return loss

        call: Any = tg.compile(step, executor="native") if compiled else step
        losses.append([call(x, t).item() for _ in range(12)])
        if compiled:
            report = call.report()
            assert "\ncall " not in report
            assert "attention.attention_gradient" in report
    assert losses[0][-1] < 0.7 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
