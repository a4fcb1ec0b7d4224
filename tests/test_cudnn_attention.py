"""Attention by cuDNN, on a stand-in that refuses what the library refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from on_gpu import check, drawn
from sampler import host
from standin import cudnn as library
from standin import cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from bench.gpu import rehearsal
from tensorgrad import nn
from tensorgrad.backend import cudnn
from tensorgrad.ops import attention_loops


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed(cudnn=True) as module:
        yield module


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    library.planned.clear()
    library.executed.clear()
    library.kinds.clear()


#: Shapes of queries, keys and values, and options.
ATTENTION: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 16), {}),
    "causal": ((2, 3, 6, 8), (2, 3, 4, 8), (2, 3, 4, 8), {"is_causal": True, "scale": 0.5}),
    "one head": ((5, 8), (7, 8), (7, 8), {}),
    "heads alone": ((3, 5, 8), (3, 7, 8), (3, 7, 8), {}),
    "more axes": ((2, 1, 3, 5, 8), (2, 1, 3, 7, 8), (2, 1, 3, 7, 8), {}),
    "shared": ((2, 6, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), {"enable_gqa": True, "is_causal": True}),
    "all shared": ((6, 5, 8), (1, 7, 8), (1, 7, 8), {"enable_gqa": True}),
}


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
@pytest.mark.parametrize("case", ATTENTION)
def test_attention_and_its_gradients(case: str, dtype: Any) -> None:
    *shapes, options = ATTENTION[case]
    given = [drawn(*shape, dtype=dtype) for shape in shapes]
    check(lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, **options), *given)
    assert library.executed == ["sdpa", "sdpa_backward"]


def test_heads_stay_behind_the_length() -> None:
    """As projections leave them, which are read and written in place."""
    q, k, v = (drawn(2, n, 3, 8, dtype=tg.float16).detach() for n in (5, 7, 6))
    v = tg.concat([v, v[:, :1]], axis=1)
    q, k, v = (x.permute_dims(0, 2, 1, 3) for x in (q, k, v))
    for x in (q, k, v):
        x.requires_grad = True
    log.clear()
    y = nn.functional.scaled_dot_product_attention(q, k, v)
    assert log.names == ["cudnn_sdpa"]
    assert y.permute_dims(0, 2, 1, 3).data.flags.c_contiguous
    y.backward(y.detach())
    assert log.names[:2] == ["cudnn_sdpa", "cudnn_sdpa_backward"]


def test_heads_behind_the_length_may_share() -> None:
    q, k, v = (drawn(2, 5, n, 8, dtype=tg.float16).detach() for n in (6, 3, 3))
    q, k, v = (x.permute_dims(0, 2, 1, 3) for x in (q, k, v))
    log.clear()
    nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert log.names == ["cudnn_sdpa"]


@pytest.mark.parametrize("how", ["features", "examples", "misaligned"])
def test_what_lies_otherwise_is_copied(how: str) -> None:
    """Features that are no neighbours, axes of examples in another order, an odd address."""
    q, k, v = (drawn(2, 3, 2, 5, 16, dtype=tg.float16).detach() for _ in range(3))
    if how == "features":
        q, v = q[..., ::2], v.mT.astype(tg.float16).mT
        k = k[..., :8]
    elif how == "examples":
        q, k, v = (x.permute_dims(1, 0, 2, 3, 4) for x in (q, k, v))
    else:
        q = tg.concat([q.reshape(-1), q.reshape(-1)[:1]], axis=0)[1:].reshape(q.shape)
    for x in (q, k, v):
        x.requires_grad = True
    check(nn.functional.scaled_dot_product_attention, q, k, v)
    assert library.executed == ["sdpa", "sdpa_backward"]
    assert not cudnn.refused()


@pytest.mark.parametrize(
    "what", ["a mask", "float32", "features", "examples that broadcast", "dropout", "nothing"]
)
def test_other_attention_is_computed_otherwise(what: str) -> None:
    dtype = tg.float32 if what == "float32" else tg.float16
    size = 12 if what == "features" else 8
    q = drawn(2, 3, 5, size, dtype=dtype)
    k = drawn(*((1, 3) if what == "examples that broadcast" else (2, 3)), 7, size, dtype=dtype)
    v = drawn(2, 3, 7, size, dtype=dtype)
    mask = tg.tensor(np.arange(7) < 5, device="cuda") if what == "a mask" else None
    rate = 0.5 if what == "dropout" else 0.0
    if what == "nothing":
        k, v = k[:, :, :0], v[:, :, :0]
    y = nn.functional.scaled_dot_product_attention(q, k, v, mask, rate)
    y.backward(y.detach())
    assert not library.executed


def test_one_of_both_may_be_refused() -> None:
    """The other is computed by us, of what cuDNN has kept or for it."""
    q, k, v = (drawn(2, 3, n, 8, dtype=tg.float16) for n in (5, 7, 7))
    for kind in ("sdpa", "sdpa_backward"):
        library.executed.clear()
        library.MISSING.add(kind)
        cudnn.forget()
        for x in (q, k, v):
            x.grad = None
        try:
            check(nn.functional.scaled_dot_product_attention, q, k, v)
            (reason,) = cudnn.refused()
        finally:
            library.MISSING.clear()
            cudnn.forget()
        assert reason == f"{kind} of (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8) in float16"
        assert library.executed == [{"sdpa": "sdpa_backward"}.get(kind, "sdpa")]


@pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")
def test_a_compiled_step_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, one after the other in the program's memory, are written in place."""
    monkeypatch.setattr(attention_loops, "SCORES", 0)  # no nests, as of many scores
    started = [drawn(2, 3, n, 8, dtype=tg.float16) for n in (64, 64, 72, 72)]

    def step(g: Any, q: Any, k: Any, v: Any) -> Any:
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return [y, *tg.autograd.grad(y, [q, k, v], [g])]

    with rehearsal.installed(cudnn=True):
        arrays = [tg.Tensor(host(x), device="cuda", requires_grad=True) for x in started]
        wanted = [host(x) for x in step(*arrays)]
        run: Any = tg.compile(step)
        for _ in range(7):
            log.clear()
            found = run(*arrays)
        assert (log.graphs, log.allocations) == (1, 0)
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(host(x), y)
        assert library.planned == ["sdpa", "sdpa_backward"]
