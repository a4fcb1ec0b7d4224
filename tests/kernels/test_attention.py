"""kernels/attention.cu: values and gradients against float64 NumPy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from emulator import emulator
from kernel_devices import EPSILON, Cuda, as_float64

import tensorgrad as tg
from tensorgrad.backend import philox
from tensorgrad.backend.launch import BACKWARD, FORWARD, common
from tensorgrad.nn.functional import scaled_dot_product_attention as attend
from tensorgrad.ops.attention_blocks import attention_gradients, attention_value


@pytest.fixture(autouse=True)
def _few_schedules(cuda: Cuda, request: pytest.FixtureRequest) -> None:
    """Warps by themselves, and all threads by chance; 16-bit floats, which share a text, under one
    of these each."""
    dtype = request.node.callspec.params.get("dtype")
    left_out = {1: "bfloat16", 4: "float16"}
    if not cuda.real and left_out.get(emulator.schedule, dtype) == dtype:
        pytest.skip("another schedule")


DTYPES = ("float16", "bfloat16", "float32")
Array = np.ndarray[Any, Any]
KERNELS = ("forward", "queries", "keys")


# --- in float64 -----------------------------------------------------------------------------------


class Example(NamedTuple):
    """What attention is computed of. kept: what dropout multiplies the weights with."""

    q: Array
    k: Array
    v: Array
    g: Array
    mask: Array | None = None
    causal: bool = False
    kept: Array | float = 1.0

    def results(self) -> list[Array]:
        """The value and the gradients of q, k and v, from the matrix of scores."""
        q, k, v, g, mask = self[:5]
        scale = q.shape[-1] ** -0.5
        s = q @ k.swapaxes(-1, -2) * scale
        seen: Any = np.tri(*s.shape[-2:], dtype=bool) if self.causal else np.True_
        if mask is not None and mask.dtype == bool:
            seen = seen & mask
        elif mask is not None:
            s = s + mask
        s = np.where(seen, s, -np.inf)
        e = np.exp(s - s.max(-1, keepdims=True, initial=-1e300))
        sums = e.sum(-1, keepdims=True)
        p = e / np.where(sums == 0, 1, sums)
        weights = p * self.kept
        d = (g @ v.swapaxes(-1, -2)) * self.kept
        d = p * (d - (d * p).sum(-1, keepdims=True))
        turned = (d.swapaxes(-1, -2), weights.swapaxes(-1, -2))
        found = (d @ k * scale, turned[0] @ q * scale, turned[1] @ g)
        return [weights @ v, *(summed(x, y.shape) for x, y in zip(found, (q, k, v), strict=True))]


def summed(x: Array, shape: tuple[int, ...]) -> Array:
    """Added up to ``shape``, which was broadcast."""
    more = x.ndim - len(shape)
    over = [a for a in range(x.ndim) if a < more or shape[a - more] != x.shape[a]]
    return x.sum(axis=tuple(over)).reshape(shape)


def rounded(x: Array, dtype: str) -> Array:
    """As the device has them, in float64."""
    return as_float64(tg.tensor(x, dtype=getattr(tg, dtype)))


def example(rng: np.random.Generator, dtype: str, *shapes: Any, **options: Any) -> Example:
    """With arrays of these shapes, q, k and v, and the gradient of the result."""
    heads = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    every = (*shapes, (*heads, shapes[0][-2], shapes[2][-1]))
    q, k, v, g = (rounded(rng.normal(size=shape), dtype) for shape in every)
    return Example(q, k, v, g, **options)


def close(found: Any, wanted: Array, dtype: str) -> None:
    """Within rounding of what the largest number is made of."""
    found = as_float64(found)
    assert found.shape == wanted.shape
    bound = (32 if dtype == "float32" else 8) * EPSILON[dtype] * max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


def check(cuda: Cuda, e: Example, dtype: str, dropout_p: float = 0.0, generator: Any = None) -> Any:
    """Value and gradients by the kernels, once each. Returns them."""
    q, k, v = (cuda.tensor(a, dtype, requires_grad=True) for a in e[:3])
    mask = None if e.mask is None else tg.tensor(e.mask, device="cuda")
    cuda.launched.clear()
    y = attend(q, k, v, mask, dropout_p, e.causal, generator=generator)
    y.backward(cuda.tensor(e.g, dtype))
    found = [y, q.grad, k.grad, v.grad]
    for ours, wanted in zip(found, e.results(), strict=True):
        close(ours, wanted, dtype)
    features = 64 if max(e.q.shape[-1], e.v.shape[-1]) <= 64 else 128
    made = {f"attention_{name}_{features}": 1 for name in KERNELS}
    assert {n: c for n, c in cuda.launched.items() if n in made} == made
    return found


# --- values and gradients -------------------------------------------------------------------------

SHAPES = [
    ((2, 1, 70, 16), (2, 1, 33, 16), (2, 1, 33, 24)),  # in packs
    ((1, 5, 7), (2, 67, 7), (2, 67, 3)),  # not in packs; queries for two heads
    ((2, 3, 17, 72), (2, 1, 129, 72), (2, 1, 129, 128)),  # many features; a head shared
    ((2, 9, 8), (1, 5, 8), (2, 5, 8)),  # keys shared, values not
    ((1, 1), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(
    cuda: Cuda, dtype: str, shapes: Any, causal: bool, rng: np.random.Generator
) -> None:
    check(cuda, example(rng, dtype, *shapes, causal=causal), dtype)


@pytest.mark.parametrize("kind", ["truth", "keys", "added"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(cuda: Cuda, dtype: str, kind: str, rng: np.random.Generator) -> None:
    """One of them hides all keys from a query, one is the same for all."""
    seen = rng.random((2, 1, 19, 70)) < 0.5
    seen[:, :, 1] = False
    added = np.where(seen[1, 0], 0.5 * rng.integers(-4, 5, (19, 70)), -np.inf)
    keys = rng.random((2, 1, 1, 70)) < 0.7
    mask = {"truth": seen, "keys": keys, "added": added.astype(np.float32)}[kind]
    shapes = ((2, 1, 19, 8), (2, 1, 70, 8), (2, 1, 70, 8))
    for causal in (False, True):
        check(cuda, example(rng, dtype, *shapes, mask=mask, causal=causal), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dropout_is_that_of_the_cpu(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    """Of each weight by its place in the stream; words of a row begin at a multiple of four."""
    shapes = ((2, 1, 21, 8), (2, 1, 35, 8), (2, 1, 35, 8))
    words = 2 * 21 * 36
    for causal in (False, True):
        place = tg.Generator(7).advance(words)
        drawn = philox.bits(np, place["key"], place["position"], words)
        kept = (drawn.reshape(2, 1, 21, 36)[..., :35] >= round(0.4 * 2**32)) / 0.6
        e = example(rng, dtype, *shapes, kept=kept, causal=causal)
        check(cuda, e, dtype, 0.4, tg.Generator(7))


@pytest.mark.parametrize("position", [5, 2**33 + 3])
def test_the_stream_may_begin_anywhere(cuda: Cuda, position: int, rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=(2, n, 8)).astype(np.float32) for n in (9, 22, 22, 9)]
    drop = {"key": 11, "position": position, "p": 0.4}
    found = []
    for gpu in (True, False):
        q, k, v, g = (cuda.tensor(a).data if gpu else a for a in arrays)
        options: dict[str, Any] = {"q": q, "k": k, "v": v, "mask": None, "causal": False}
        options["scale"] = 0.3
        if gpu:
            y, r = FORWARD["attention"](cuda.xp, **options, **drop)
            saved = {**options, **drop, "y": y, "r": r}
            made = BACKWARD["attention"](cuda.xp, g, (True, True, True, False), **saved)
        else:
            y, r = attention_value(np, **options, drop=tuple(drop.values()))
            saved = {**options, **drop, "y": y, "r": r}
            made = attention_gradients(g, (True, True, True, False), saved)
        found.append([y, *made[:3]])
    for ours, theirs in zip(*found, strict=True):
        close(tg.Tensor(ours, copy=False), theirs.astype(np.float64), "float32")


def test_a_mask_may_have_more_heads_than_queries(cuda: Cuda, rng: np.random.Generator) -> None:
    e = example(rng, "float32", (5, 8), (7, 8), (7, 8))
    e = e._replace(mask=rng.random((2, 1, 5, 7)) < 0.6, g=rng.normal(size=(2, 1, 5, 8)))
    check(cuda, e, "float32")


def test_the_order_of_sums_is_that_of_the_shapes(cuda: Cuda, rng: np.random.Generator) -> None:
    """The same bits, whichever threads come first."""
    if cuda.real:
        pytest.skip("the emulator has schedules")
    e = example(rng, "float32", (3, 37, 8), (1, 70, 8), (1, 70, 8), causal=True)
    found = []
    for schedule in (0, 5):
        with emulator.scheduled(schedule):
            found.append(check(cuda, e, "float32"))
    for a, b in zip(*found, strict=True):
        assert as_float64(a).tobytes() == as_float64(b).tobytes()


def test_all_weights_are_dropped(cuda: Cuda, rng: np.random.Generator) -> None:
    q = cuda.tensor(rng.normal(size=(3, 8)), requires_grad=True)
    y = attend(q, q, q, dropout_p=1.0)
    y.sum().backward()
    assert q.grad is not None
    assert not as_float64(y).any()
    assert not as_float64(q.grad).any()


def test_steps_through_the_grid(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 1)
    monkeypatch.setattr("tensorgrad.backend.launch.attention.MOST_BLOCKS", 1)
    for dtype in ("float16", "float32"):
        shapes = ((2, 66, 8), (2, 70, 8), (2, 70, 8))
        check(cuda, example(rng, dtype, *shapes, causal=True), dtype)


# --- how arrays lie -------------------------------------------------------------------------------


def test_heads_in_the_middle_are_read_and_written_in_place(
    cuda: Cuda, rng: np.random.Generator
) -> None:
    """As projections leave them: (length, batch, heads * features), all three in one array."""
    length, batch, heads, size = 9, 2, 3, 8
    whole = rng.normal(size=(length, batch, 3, heads, size))
    room = cuda.tensor(whole)
    parts = [tg.Tensor(room.data[:, :, n].transpose(1, 2, 0, 3), copy=False) for n in range(3)]
    for x in parts:
        x.requires_grad = True
    y = attend(parts[0], parts[1], parts[2])
    assert y.data.transpose(2, 0, 1, 3).flags.c_contiguous
    g = rng.normal(size=(length, batch, heads, size))
    y.backward(tg.Tensor(cuda.tensor(g).data.transpose(1, 2, 0, 3), copy=False))
    q, k, v = (rounded(whole[:, :, n].transpose(1, 2, 0, 3), "float32") for n in range(3))
    e = Example(q, k, v, g.transpose(1, 2, 0, 3))
    for ours, wanted in zip([y, *(x.grad for x in parts)], e.results(), strict=True):
        close(ours, wanted, "float32")
    saved = {n: x.data for n, x in zip("qkv", parts, strict=True)}
    level = FORWARD["attention"](cuda.xp, **saved, mask=None, causal=False, scale=1.0)[1]
    saved.update(y=y.data, r=level)
    made = BACKWARD["attention"](
        cuda.xp, y.data, (True, True, True, False), **saved, mask=None, causal=False, scale=1.0
    )
    assert all(d.transpose(2, 0, 1, 3).flags.c_contiguous for d in made[:3])


@pytest.mark.parametrize("change", ["offset", "columns", "reversed"])
def test_rows_that_are_no_packs(cuda: Cuda, change: str, rng: np.random.Generator) -> None:
    """Behind an address that is not a multiple of 16, or with elements that are no neighbours."""
    e = example(rng, "float32", (2, 6, 8), (2, 7, 8), (2, 7, 8))
    given = []
    for a in e[:3]:
        if change == "offset":
            given.append(cuda.tensor(a, offset=1))
        elif change == "columns":
            given.append(
                tg.Tensor(cuda.tensor(a.swapaxes(1, 2)).data.transpose(0, 2, 1), copy=False)
            )
        else:
            given.append(tg.Tensor(cuda.tensor(a[:, ::-1]).data[:, ::-1], copy=False))
    close(attend(given[0], given[1], given[2]), e.results()[0], "float32")
    assert cuda.launched == {"attention_forward_64": 1}


# --- hostile numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_nobody_sees_may_be_anything(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    """Queries that see nothing hold NaN, and keys that are hidden NaN and infinities."""
    e = example(rng, dtype, (2, 19, 8), (2, 70, 8), (2, 70, 8))
    seen = rng.random((19, 70)) < 0.5
    seen[3], seen[:, 40:] = False, False
    wanted = e._replace(mask=seen).results()[0]
    q, k, v = (a.copy() for a in e[:3])
    q[:, 3], k[:, 41], k[:, 69] = np.nan, np.nan, np.inf
    mask = tg.tensor(seen, device="cuda")
    x, z = (cuda.tensor(a, dtype, requires_grad=True) for a in (q, v))
    y = attend(x, cuda.tensor(k, dtype), z, mask)
    close(y, wanted, dtype)
    y.backward(cuda.tensor(e.g, dtype))
    assert z.grad is not None
    close(z.grad, e._replace(mask=seen).results()[3], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_queries_that_see_nothing(
    cuda: Cuda, dtype: str, rng: np.random.Generator
) -> None:
    """They are 0, and add nothing to others, whatever is there and comes back."""
    e = example(rng, dtype, (2, 19, 8), (2, 21, 8), (2, 21, 8))
    seen = rng.random((19, 21)) < 0.7
    seen[3] = False
    wanted = e._replace(mask=seen).results()
    q, g = e.q.copy(), e.g.copy()
    q[:, 3], g[:, 3] = np.nan, np.inf
    tensors = [cuda.tensor(a, dtype, requires_grad=True) for a in (q, e.k, e.v)]
    y = attend(tensors[0], tensors[1], tensors[2], tg.tensor(seen, device="cuda"))
    y.backward(cuda.tensor(g, dtype))
    for ours, theirs in zip([y, *(x.grad for x in tensors)], wanted, strict=True):
        close(ours, theirs, dtype)


def test_all_is_hidden(cuda: Cuda, rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=(5, 8)) for _ in range(3)]
    arrays[1][1], arrays[2][2] = np.inf, np.nan
    tensors = [cuda.tensor(a, requires_grad=True) for a in arrays]
    for mask in (np.zeros((5, 5), bool), np.full((5, 1), -np.inf, np.float32)):
        y = attend(tensors[0], tensors[1], tensors[2], tg.tensor(mask, device="cuda"))
        if mask.dtype == bool:
            y.sum().backward()
        else:
            continue  # infinite scores plus -inf are NaN
        assert not any(as_float64(x).any() for x in (y, *(t.grad for t in tensors)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_scores_and_nan(cuda: Cuda, dtype: str, rng: np.random.Generator) -> None:
    """The largest takes all; a NaN that is seen makes its row NaN, and no other."""
    q = np.array([[60.0], [-60.0], [0.0]])
    k = np.linspace(-40, 40, 70).reshape(70, 1)
    v = rounded(rng.normal(size=(70, 4)), dtype)
    keys, values = cuda.tensor(k, dtype), cuda.tensor(v, dtype)
    y = as_float64(attend(cuda.tensor(q, dtype), keys, values))
    np.testing.assert_allclose(y[:2], v[[69, 0]], rtol=1e-2)
    q[1] = np.nan
    y = as_float64(attend(cuda.tensor(q, dtype), keys, values))
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize("shapes", [((0, 8), (3, 8)), ((3, 8), (0, 8)), ((0, 3, 8), (0, 3, 8))])
def test_nothing_at_all(cuda: Cuda, shapes: Any) -> None:
    q, k = (cuda.tensor(np.ones(s), requires_grad=True) for s in shapes)
    y = attend(q, k, k)
    y.sum().backward()
    assert not as_float64(y).any()
    assert q.grad is not None
    assert not as_float64(q.grad).any()
    assert not cuda.launched


# --- where the kernels are not --------------------------------------------------------------------


def test_bfloat16_on_turing_goes_block_by_block(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """It has no tensor cores for it."""
    if cuda.real:
        pytest.skip("a card is what it is")
    monkeypatch.setattr(cuda.xp.cuda.Device, "compute_capability", "75")
    common.forget_plans()
    for dtype, count in (("bfloat16", 0), ("float16", 1)):
        x = cuda.tensor(rng.normal(size=(5, 8)), dtype)
        attend(x, x, x)
        assert cuda.launched["attention_forward_64"] == count


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float64", (2, 5, 8)), ("float32", (5, 130)), ("float32", (1, 2, 1, 2, 5, 8))],
)
def test_others_go_block_by_block(
    cuda: Cuda, dtype: str, shape: Any, rng: np.random.Generator
) -> None:
    """float64, more features, more axes of heads."""
    e = example(rng, dtype, shape, shape, shape)
    q, k, v = (cuda.tensor(a, dtype, requires_grad=True) for a in e[:3])
    y = attend(q, k, v)
    y.backward(cuda.tensor(e.g, dtype))
    for ours, wanted in zip((y, q.grad, k.grad, v.grad), e.results(), strict=True):
        assert ours is not None
        np.testing.assert_allclose(as_float64(ours), wanted, rtol=1e-4, atol=1e-5)
    assert not [name for name in cuda.launched if name.startswith("attention")]


def test_the_gradient_of_a_mask(cuda: Cuda, rng: np.random.Generator) -> None:
    """It goes block by block, those of the others by the kernels."""
    e = example(rng, "float32", (2, 6, 8), (2, 7, 8), (2, 7, 8))
    added = rng.normal(size=(6, 7)).astype(np.float32)
    found = []
    for device in ("cuda", "cpu"):
        tensors = [
            tg.tensor(a, dtype=tg.float32, device=device, requires_grad=True)
            for a in (*e[:3], added)
        ]
        y = attend(tensors[0], tensors[1], tensors[2], tensors[3])
        (y * y).sum().backward()
        found.append([as_float64(t.grad) for t in tensors])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert cuda.launched["attention_keys_64"] == 1


def test_second_order_and_switching_off(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of gradients are those of the CPU; what is kept serves kernels and blocks."""
    from tensorgrad.backend.cuda import load

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, n, 4)) for n in (5, 6, 6)]

    def leaves(device: str) -> list[tg.Tensor]:
        return [tg.tensor(a, dtype=tg.float32, device=device, requires_grad=True) for a in arrays]

    def penalty(x: list[tg.Tensor]) -> list[tg.Tensor]:
        y = attend(x[0], x[1], x[2], is_causal=True)
        first = tg.autograd.grad((y**2).sum(), x, create_graph=True)
        return list(tg.autograd.grad(sum((d**2).sum() for d in first), x))

    for ours, theirs in zip(penalty(leaves("cuda")), penalty(leaves("cpu")), strict=True):
        np.testing.assert_allclose(as_float64(ours), as_float64(theirs), rtol=2e-3, atol=2e-4)
    x = leaves("cuda")
    y = (attend(x[0], x[1], x[2]) ** 2).sum()
    plain = tg.autograd.grad(y, x, retain_graph=True)
    with monkeypatch.context() as patch:
        patch.setattr(load(), "kernels", False)
        other = tg.autograd.grad(y, x)
        z = (attend(x[0], x[1], x[2]) ** 2).sum()
    for found in (other, tg.autograd.grad(z, x)):
        for a, b in zip(found, plain, strict=True):
            np.testing.assert_allclose(as_float64(a), as_float64(b), rtol=1e-4, atol=1e-5)


def test_a_program_has_the_kernels_in_its_graphs(cuda: Cuda, rng: np.random.Generator) -> None:
    q, k, v = (cuda.tensor(rng.normal(size=(2, n, 8)), requires_grad=True) for n in (6, 7, 7))

    def step(q: tg.Tensor, k: tg.Tensor, v: tg.Tensor) -> list[tg.Tensor]:
        y = attend(q, k, v, is_causal=True)
        return [y, *tg.autograd.grad((y * y).sum(), [q, k, v])]

    compiled = tg.compile(step)
    wanted = step(q, k, v)
    for _ in range(3):
        for ours, theirs in zip(compiled(q, k, v), wanted, strict=True):
            np.testing.assert_allclose(as_float64(ours), as_float64(theirs), rtol=1e-5, atol=1e-6)
    report = compiled.report()
    assert "2 calls (attention, attention_gradient)" in report
    assert "one graph" in report


def test_memory_grows_with_the_length(cuda: Cuda) -> None:
    """What the launches ask for is results, a number for each row and another one backward."""
    if cuda.real:
        pytest.skip("the stand-in counts")
    q = tg.zeros((1, 2, 64, 16), device="cuda", requires_grad=True)
    rows, size = 2 * 64 * 4, 2 * 64 * 16 * 4
    asked: list[int] = []
    plain = cuda.xp.empty

    def empty(shape: Any, dtype: Any = float) -> Any:
        asked.append(math.prod(shape) * np.dtype(dtype).itemsize)
        return plain(shape, dtype)

    y = attend(q, q, q)
    g = tg.ones(y.shape, device="cuda")
    cuda.xp.empty = empty
    try:
        attend(q, q, q)
        assert sorted(asked) == [rows, size]
        asked.clear()
        y.backward(g)
        assert sorted(asked)[:4] == [rows, size, size, size]
        assert max(asked) == size
    finally:
        cuda.xp.empty = plain
