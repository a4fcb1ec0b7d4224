"""``scaled_dot_product_attention``: against PyTorch, whatever the blocks, and what it promises."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR, EXECUTORS
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad, gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import functional
from tensorgrad.ops import attention_blocks, attention_loops
from tensorgrad.ops.random import Generator

attend: Any = functional.scaled_dot_product_attention


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few scores, so that small examples take many."""
    monkeypatch.setattr(attention_blocks, "SCORES", 24)
    monkeypatch.setattr(attention_blocks, "ROWS", 4)
    monkeypatch.setattr(attention_blocks, "ON_GPU", (1, 1))


@pytest.fixture(params=["blocks", "whole"])
def blocks(request: pytest.FixtureRequest) -> str:
    """Both in small blocks and all at once."""
    if request.param == "blocks":
        request.getfixturevalue("small_blocks")
    return str(request.param)


def strided(rng: np.random.Generator, x: Any) -> Any:
    """The same numbers, lying otherwise in memory."""
    kind = rng.integers(4)
    if kind == 0:
        return x
    if kind == 1:  # as heads of a projection lie
        return np.ascontiguousarray(np.moveaxis(x, -2, 0)).transpose(*range(1, x.ndim - 1), 0, -1)
    if kind == 2:
        return np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    return np.repeat(x, 2, axis=-1)[..., ::2]


def example(rng: np.random.Generator) -> tuple[list[Any], dict[str, Any]]:
    """Random shapes, masks and options, with arrays of float64."""
    queries, keys, size, out = (int(n) for n in rng.integers(1, [13, 14, 5, 5]))
    grouped = bool(rng.integers(2))
    lead = tuple(int(n) for n in rng.integers(1, 3, rng.integers(0, 3)))
    of_key: tuple[int, ...]
    if grouped:
        few = int(rng.integers(1, 3))
        of_query, of_key = (*lead, few * int(rng.integers(1, 4))), (*lead, few)
    else:
        of_query = lead
        of_key = tuple(1 if rng.random() < 0.3 else n for n in lead)[rng.integers(0, 2) :]
    shapes = [(*of_query, queries, size), (*of_key, keys, size), (*of_key, keys, out)]
    arrays = [strided(rng, rng.standard_normal(shape)) for shape in shapes]
    options: dict[str, Any] = {"enable_gqa": grouped}
    if rng.random() < 0.4:
        options["is_causal"] = True
    elif rng.random() < 0.8:
        full = (*of_query, queries, keys)
        shape = tuple(1 if rng.random() < 0.3 else n for n in full)
        shape = (*shape[:-2], queries, shape[-1])[rng.integers(0, len(shape) - 1) :]
        options["attn_mask"] = (
            rng.random(shape) < 0.6 if rng.random() < 0.5 else rng.standard_normal(shape)
        )
    if rng.random() < 0.5:
        options["scale"] = float(rng.uniform(-1, 2))
    return arrays, options


def leaves_of(arrays: Any, mask: Any, make: Any) -> tuple[list[Any], Any]:
    given = [make(a) for a in arrays]
    mask = None if mask is None else make(mask)
    return given + ([mask] if mask is not None and "float" in str(mask.dtype) else []), mask


@pytest.mark.parametrize("number", range(40))
def test_agrees_with_pytorch(number: int, blocks: str) -> None:
    """Values, gradients and gradients of gradients."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(number)
    arrays, options = example(rng)
    mask = options.pop("attn_mask", None)
    weights: Any = None
    found = []
    for make, function, differentiate in (
        (lambda a: Tensor(a, copy=None), attend, grad),
        (
            lambda a: torch.tensor(a.copy()),
            torch.nn.functional.scaled_dot_product_attention,
            torch.autograd.grad,
        ),
    ):
        leaves, given = leaves_of(arrays, mask, lambda a: make(a))  # noqa: B023
        for x in leaves:
            x.requires_grad = True
        y = function(*leaves[:3], given, **options)
        if weights is None:
            weights = rng.standard_normal(y.shape), [rng.standard_normal(x.shape) for x in leaves]
        plain = differentiate((y * make(weights[0])).sum(), leaves, retain_graph=True)
        first = differentiate((y * make(weights[0])).sum(), leaves, create_graph=True)
        total = sum((d * make(w)).sum() for d, w in zip(first, weights[1], strict=True))
        second = differentiate(total, leaves)
        found.append([x.detach().numpy() for x in (y, *plain, *first, *second)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("number", range(30))
def test_the_blocks_change_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, too: what is dropped depends on the places of query and key alone."""
    rng = np.random.default_rng(100 + number)
    arrays, options = example(rng)
    mask = options.pop("attn_mask", None)
    results = []
    for scores, rows in ((1 << 18, 256), (24, 4), (int(rng.integers(1, 99)), number % 7 + 1)):
        monkeypatch.setattr(attention_blocks, "SCORES", scores)
        monkeypatch.setattr(attention_blocks, "ROWS", rows)
        leaves, given = leaves_of(arrays, mask, Tensor)
        for x in leaves:
            x.requires_grad = True
        y = attend(*leaves[:3], given, dropout_p=0.3, generator=Generator(number), **options)
        (y * y).sum().backward()
        results.append([y.detach().numpy(), *(x.grad.numpy() for x in leaves)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_rows_that_see_nothing_give_zeros_and_no_gradient(blocks: str) -> None:
    """By truth values, by -inf, and where there is no key at all."""
    rng = np.random.default_rng(0)
    seen = rng.random((6, 7)) < 0.5
    seen[[1, 4]] = False
    for mask in (seen, np.where(seen, 0.25, -np.inf)):
        q, k, v = (Tensor(rng.standard_normal((2, n, 3)), requires_grad=True) for n in (6, 7, 7))
        m = Tensor(mask)
        y = attend(q, k, v, m)
        assert not y.detach().numpy()[:, [1, 4]].any()
        assert y.detach().numpy()[:, [0, 2, 3, 5]].all()
        y.sum().backward(create_graph=True)
        once = [x.grad.detach().numpy().copy() for x in (q, k, v) if x.grad is not None]
        assert all(np.isfinite(d).all() for d in once)
        assert not once[0][:, [1, 4]].any()
        first = q.grad
        assert first is not None
        for d in grad((first * first).sum(), [q, k, v]):
            assert np.isfinite(d.numpy()).all()
    nothing = Tensor(np.ones((2, 0, 3)), requires_grad=True)
    q = Tensor(np.ones((2, 6, 3)), requires_grad=True)
    y = attend(q, nothing, nothing)
    y.sum().backward()
    assert y.tolist() == np.zeros((2, 6, 3)).tolist()
    assert q.grad is not None
    assert not q.grad.numpy().any()


def test_what_is_masked_may_be_anything_but_a_value(blocks: str) -> None:
    """Keys that nobody sees may hold NaN, as padding does where nobody wrote."""
    rng = np.random.default_rng(1)
    q, k, v = (Tensor(rng.standard_normal((n, 3))) for n in (5, 9, 9))
    wanted = attend(q, k[:6], v[:6]).numpy()
    k[6:], v[6:] = np.nan, 1e300
    found = attend(q, k, v, Tensor(np.arange(9) < 6).reshape(1, 9))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("how", ["eager", "recorded", "compiled"])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all rows", "one row"])
def test_rows_that_see_nothing_have_no_gradient_whatever_lies_there(
    blocks: str, everywhere: bool, how: str
) -> None:
    """Neither what they hold themselves nor what they do not see makes NaN of a gradient."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((7, 3)) for _ in range(3)]
    seen = np.ones((7, 7), bool)
    seen[slice(None) if everywhere else 1] = False
    if everywhere:
        arrays[1][1], arrays[2][0] = np.inf, np.nan
    else:
        arrays[0][1] = np.nan
    mask, tensors = Tensor(seen), [Tensor(a, requires_grad=True) for a in arrays]

    def step(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        y = attend(q, k, v, mask)
        loss = (y * y).sum() + y.sum()
        found = grad(loss, [q, k, v], create_graph=how == "recorded")
        return [y.detach(), *[g.detach() for g in found]]

    call = tg.compile(step) if how == "compiled" else step
    for _ in range(2):
        y, *gradients = [a.numpy() for a in call(*tensors)]
        assert all(np.isfinite(a).all() for a in (y, *gradients))
        assert not y[1].any()
        assert not gradients[0][1].any()
        assert not everywhere or not any(a.any() for a in (y, *gradients))


def test_large_scores_do_not_overflow(blocks: str) -> None:
    q = Tensor(np.array([[1e3], [-1e3], [0.0]], np.float32), requires_grad=True)
    k = Tensor(np.linspace(-40, 40, 9, dtype=np.float32).reshape(9, 1))
    v = Tensor(np.arange(9, dtype=np.float32).reshape(9, 1))
    y = attend(q, k, v)
    np.testing.assert_allclose(y.detach().numpy()[:, 0], [8, 0, 4])
    y.sum().backward()
    assert q.grad is not None
    np.testing.assert_allclose(q.grad.numpy()[:2], 0, atol=1e-6)


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_the_share() -> None:
    """Weights are 1 / 50 each; what is left of them is seen through values that are units."""
    q, k = Tensor(np.zeros((8, 40, 2))), Tensor(np.zeros((8, 50, 2)))
    weights = attend(q, k, Tensor(np.eye(50)), dropout_p=0.3, generator=Generator(0)).numpy() * 50
    assert set(np.unique(weights.round(12))) == {0.0, round(1 / 0.7, 12)}
    count = weights.size
    assert abs((weights == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / count)
    for axis in range(3):  # no row, column or head is like another
        shares = (weights == 0).mean(axis=tuple(k for k in range(3) if k != axis))
        assert abs(shares.std() / np.sqrt(0.21 * len(shares) / count) - 1) < 0.5
    assert (weights[0] != weights[1]).mean() > 0.3


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_use_the_weights_that_were_kept(blocks: str, causal: bool) -> None:
    """Forward and backward drop the same: differences with the same draw say so, twice."""
    rng = np.random.default_rng(3)
    shapes = ((2, 5, 3), (2, 6, 3), (2, 6, 2), (5, 6))
    inputs = [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]

    def f(*xs: Tensor) -> Tensor:
        return attend(*xs, 0.4, causal, generator=Generator(7))

    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


def test_dropout_draws_from_the_default_generator(own_random_numbers: None) -> None:
    q = Tensor(np.ones((3, 5, 2)))
    tg.manual_seed(5)
    one = attend(q, q, q * Tensor(np.arange(5.0)).reshape(5, 1), dropout_p=0.5).numpy()
    after = tg.random.default_generator.state()
    assert after == (5, 3 * 5 * 8)
    two = attend(q, q, q * Tensor(np.arange(5.0)).reshape(5, 1), dropout_p=0.5).numpy()
    assert (one != two).any()
    tg.manual_seed(5)
    again = attend(q, q, q * Tensor(np.arange(5.0)).reshape(5, 1), dropout_p=0.5).numpy()
    np.testing.assert_array_equal(one, again)
    assert not attend(q, q, q, dropout_p=1.0).numpy().any()


# --- memory ---------------------------------------------------------------------------------------


def peak(length: int, **options: Any) -> int:
    """The most bytes that forward and backward pass take at once, beyond the inputs."""
    rng = np.random.default_rng(0)
    leaves = [
        Tensor(rng.standard_normal((length, 4)).astype(np.float32), requires_grad=True)
        for _ in range(3)
    ]
    tracemalloc.start()
    try:
        attend(*leaves, **options).sum().backward()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"is_causal": True, "dropout_p": 0.5}], ids=str)
def test_memory_grows_with_the_length_and_not_with_its_square(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the blocks made smaller, so that they do not hide what grows."""
    monkeypatch.setattr(attention_blocks, "SCORES", 1 << 16)
    if options:
        options = {**options, "generator": Generator(0)}
    lengths = (1024, 2048) if options else (2048, 4096)
    one, two = (peak(n, **options) for n in lengths)
    assert two < 2.1 * one
    assert two < lengths[1] ** 2 * 4 / 8


# --- programs, types, devices ---------------------------------------------------------------------


@EVERY_EXECUTOR
def test_programs_do_what_eager_mode_does(
    executor: str, blocks: str, own_random_numbers: None
) -> None:
    """With dropout the same weights are dropped; heads that are shared, a mask that is trained."""
    rng = np.random.default_rng(2)
    shapes = ((2, 3, 5, 4), (3, 6, 4), (2, 1, 6, 3), (5, 6))
    inputs = [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]

    def step(*xs: Tensor) -> Tensor:
        for x in xs:
            x.grad = None
        y = attend(*xs, dropout_p=0.4) + attend(*xs[:3], is_causal=True, enable_gqa=False)
        (y * y).sum().backward()
        return y.detach()

    compiled = tg.compile(step, executor=executor)
    for seed in range(3):
        results = []
        for call in (compiled, step):
            tg.manual_seed(seed)
            y = call(*inputs)
            results.append(
                [y.numpy().copy(), *[x.grad.numpy().copy() for x in inputs if x.grad is not None]]
            )
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    assert compiled.captures == 1
    assert compiled.executor == executor, compiled.report()  # another one takes over what differs


def test_long_sequences_are_calls_in_programs(
    monkeypatch: pytest.MonkeyPatch, own_random_numbers: None
) -> None:
    """Their scores would take more memory than all the rest; short ones are loops."""
    monkeypatch.setattr(attention_loops, "SCORES", 1)
    for length, executor in itertools.product((64, 4), EXECUTORS):
        rng = np.random.default_rng(length)
        inputs = [Tensor(rng.standard_normal((length, 2)), requires_grad=True) for _ in range(3)]

        def step(*xs: Tensor) -> Tensor:
            for x in xs:
                x.grad = None
            y = attend(*xs, is_causal=True) * attend(*xs, dropout_p=0.3)
            y.sum().backward()
            return y.detach()

        compiled = tg.compile(step, executor=executor)
        results = []
        for call in (compiled, step):
            tg.manual_seed(1)
            y = call(*inputs)
            results.append(
                [y.numpy().copy(), *[x.grad.numpy().copy() for x in inputs if x.grad is not None]]
            )
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        assert compiled.executor == executor, compiled.report()
        if executor == "native":
            assert ("block by block" in compiled.report()) == (length == 64)


@pytest.mark.parametrize("option", [{}, {"is_causal": True}], ids=str)
def test_on_a_gpu_the_same_weights_are_dropped(option: dict[str, Any], blocks: str) -> None:
    """On the stand-in for CuPy: values and gradients are those of the CPU."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((2, 6, 3), (1, 9, 3), (2, 9, 4), (6, 9))]
    with cupy_standin.installed():
        results = []
        for device in ("cpu", "cuda"):
            xs = [Tensor(a, device=device, requires_grad=True) for a in arrays]
            y = attend(*xs, 0.4, generator=Generator(5), **option)
            assert y.device.startswith(device)
            (y * y).sum().backward()
            results.append(
                [
                    y.detach().cpu().numpy(),
                    *[x.grad.cpu().numpy() for x in xs if x.grad is not None],
                ]
            )
    assert len(results[0]) == 5
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_computed_in_float32(dtype: str) -> None:
    """Of 300 keys each has a weight below what these types can add to 1."""
    rng = np.random.default_rng(0)
    inputs = [Tensor(rng.standard_normal((300, 8)), dtype=dtype) for _ in range(3)]
    wide = [x.astype("float64") for x in inputs]
    for x in (*inputs, *wide):
        x.requires_grad = True
    y, z = attend(*inputs), attend(*wide)
    assert str(y.dtype) == dtype
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    np.testing.assert_allclose(y.double().detach().numpy(), z.detach().numpy(), atol=unit)
    y.sum().backward()
    z.sum().backward()
    for a, b in zip(inputs, wide, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert str(a.grad.dtype) == dtype
        wanted = b.grad.numpy()
        np.testing.assert_allclose(
            a.grad.double().numpy(), wanted, atol=4 * unit * np.abs(wanted).max()
        )


def test_masks_take_on_the_dtype() -> None:
    """A float64 mask beside float32 widens nothing, and its gradient is float64."""
    q = Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    mask = Tensor(np.zeros((3, 3)), requires_grad=True)
    y = attend(q, q, q, mask)
    assert y.dtype == tg.float32
    y.sum().backward()
    assert mask.grad is not None
    assert mask.grad.dtype == tg.float64


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "options", "text"),
    [
        (((3,), (3, 3), (3, 3)), {}, "need two axes"),
        (((3, 4), (3, 5), (3, 4)), {}, "as many features"),
        (((3, 4), (3, 4), (2, 4)), {}, "a value for each key"),
        (((2, 3, 4), (3, 3, 4), (3, 3, 4)), {}, "must broadcast"),
        (((3, 4), (3, 4), (3, 4)), {"enable_gqa": True}, "axis -3 for heads"),
        (((3, 3, 4), (2, 3, 4), (2, 3, 4)), {"enable_gqa": True}, "divides"),
        (((4, 3, 4), (2, 3, 4), (4, 3, 4)), {"enable_gqa": True}, "divides"),
        (((3, 4), (5, 4), (5, 4)), {"attn_mask": Tensor(np.ones((2, 5), bool))}, "attn_mask"),
        (((1, 4), (5, 4), (5, 4)), {"attn_mask": Tensor(np.ones((3, 5), bool))}, "attn_mask"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, options: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        attend(*[Tensor(np.zeros(shape)) for shape in shapes], **options)


def test_options_that_are_wrong() -> None:
    x = Tensor(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        attend(x, x, x, dropout_p=1.5)
    with pytest.raises(DtypeError, match="truth values"):
        attend(x, x, x, Tensor(np.zeros((3, 3), np.int64)))


def test_every_way_to_cut_covers_everything_once() -> None:
    for heads, rows, columns in itertools.product([(), (3,), (2, 5), (0, 2)], (1, 7), (1, 9)):
        q, k = np.zeros((*heads, rows, 2)), np.zeros((*heads, columns, 2))
        cut = attention_blocks.Blocks(np, (q, k, k, None), False, 1.0, None)
        seen = np.zeros((*heads, rows, columns))
        for group in cut.groups():
            for i in cut.row_blocks():
                for j in cut.column_blocks(i):
                    seen[(*group, i, j)] += 1
        assert (seen == 1).all()
