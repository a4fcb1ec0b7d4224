"""checkpoint: the same gradients with less stored."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn, ops
from tensorgrad.amp import autocast
from tensorgrad.autograd import checkpoint, grad, is_recomputing
from tensorgrad.errors import GradientError

RNG = np.random.default_rng(4)


def leaf(*shape: int) -> Tensor:
    return Tensor(RNG.standard_normal(shape), requires_grad=True)


def block(x: Tensor, w: Tensor) -> Tensor:
    return ops.tanh(ops.exp(x @ w) * 0.1)


def test_same_gradients_for_arguments_and_captured_parameters() -> None:
    x, w, captured = leaf(3, 4), leaf(4, 4), leaf(4)

    def segment(a: Tensor) -> Tensor:
        return block(a, w) * captured

    (segment(segment(x)) * 2.0).sum().backward()
    wanted = [t.grad.numpy() for t in (x, w, captured) if t.grad is not None]
    for t in (x, w, captured):
        t.grad = None
    (checkpoint(segment, checkpoint(segment, x)) * 2.0).sum().backward()
    found = [t.grad.numpy() for t in (x, w, captured) if t.grad is not None]
    assert len(found) == 3
    for a, b in zip(wanted, found):
        np.testing.assert_array_equal(a, b)


def test_grad_with_respect_to_a_captured_parameter() -> None:
    x, w = leaf(3, 4), leaf(4, 4)
    (wanted,) = grad(block(x, w).sum(), w)
    (found,) = grad(checkpoint(lambda a: block(a, w), x).sum(), w)
    np.testing.assert_array_equal(wanted.numpy(), found.numpy())


def test_second_order() -> None:
    x = leaf(3)

    def segment(a: Tensor) -> Tensor:
        return ops.exp(a) * a

    def second(function: Callable[[Tensor], Tensor]) -> np.ndarray:
        (g,) = grad(function(x).sum(), x, create_graph=True)
        (h,) = grad((g * g).sum(), x)
        return h.numpy()

    np.testing.assert_allclose(
        second(lambda a: checkpoint(segment, a)), second(segment), rtol=1e-14
    )


def test_several_outputs_and_keyword_arguments() -> None:
    x = leaf(3)

    def segment(a: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return a * a * scale, ops.exp(a)

    a, b = checkpoint(segment, x, scale=3.0)
    (a + b).sum().backward()
    values = x.detach().numpy()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 6 * values + np.exp(values))


def test_only_one_of_several_outputs_is_used() -> None:
    x = leaf(3)
    _, b = checkpoint(lambda a: (a * 2.0, a * a), x)
    b.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())


def test_dropout_draws_the_same_mask_again() -> None:
    x = leaf(1000)
    out = checkpoint(lambda a: ops.dropout(a, 0.5), x)
    before = ops.random.default_generator.state()
    out.sum().backward()
    assert x.grad is not None
    kept = out.numpy() if not out.requires_grad else out.detach().numpy()
    np.testing.assert_array_equal(x.grad.numpy() != 0, kept != 0)
    assert ops.random.default_generator.state() == before


class Counting(nn.Module):
    """Counts its calls, but not those that are made again."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not is_recomputing():
            self.calls += 1
        return x * 2.0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_take_a_batch_once(
    compiled: bool, nested: bool, momentum: float | None
) -> None:
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum))
    again = copy.deepcopy(plain)

    def segment(a: Tensor) -> Tensor:
        return checkpoint(again[1], again[0](a)) if nested else again(a)

    def step(x: Tensor) -> Tensor:
        loss = (checkpoint(segment, x) ** 2 * 3.0).sum()
        loss.backward()
        return loss

    run = tg.compile(step) if compiled else step
    for _ in range(3):
        x = Tensor(RNG.standard_normal((5, 3)).astype(np.float32))
        plain.zero_grad()
        again.zero_grad()
        (plain(x) ** 2 * 3.0).sum().backward()
        run(x)
    for (name, wanted), found in zip(plain.state_dict().items(), again.state_dict().values()):
        # A mean of numbers of size one may nearly vanish: its error does not.
        np.testing.assert_allclose(
            found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )
    for p, q in zip(plain.parameters(), again.parameters()):
        assert p.grad is not None
        assert q.grad is not None
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_a_module_can_ask_whether_it_is_called_again() -> None:
    counting = Counting()
    x = leaf(3)
    y = checkpoint(lambda a: counting(counting(a)), x)
    assert counting.calls == 2
    y.sum().backward()
    assert counting.calls == 2
    assert not is_recomputing()
    with tg.no_grad():
        checkpoint(counting, x)
    assert counting.calls == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_generators_of_their_own_draw_the_same_again(compiled: bool) -> None:
    """A mask of the forward pass that is not the one of the backward pass is a wrong gradient."""
    layers = [nn.Dropout(0.5, generator=tg.random.Generator(i)) for i in range(2)]

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = checkpoint(lambda a: layers[1](layers[0](a)) + layers[0](a) * 3.0, x)
        y.sum().backward()
        assert x.grad is not None
        return y.detach(), x.grad

    run = tg.compile(step) if compiled else step
    seen = []
    for _ in range(3):
        y, gradient = run(tg.ones(1000))
        np.testing.assert_array_equal(y.numpy(), gradient.numpy())
        seen.append(y.numpy().copy())
    assert not np.array_equal(seen[0], seen[1])
    assert [d.generator.state() for d in layers if d.generator is not None] == [
        (0, 3 * 2 * 1000),
        (1, 3 * 1000),
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_segment_is_computed_again_in_the_precision_of_the_first_time(dtype: str) -> None:
    """The backward pass runs outside of ``autocast``, and may run inside of another one."""
    w, x = leaf(4, 4).float(), Tensor(RNG.standard_normal((3, 4)).astype(np.float32))
    w = Tensor(w.detach(), requires_grad=True)
    seen = []

    def segment(a: Tensor) -> Tensor:
        y = a @ w
        seen.append(str(y.dtype))
        return y.float().tanh()

    found: list[Any] = []
    for function in (segment, lambda a: checkpoint(segment, a)):
        w.grad = None
        with autocast(dtype):
            y = function(x).sum()
        y.backward()
        assert w.grad is not None
        found.append(w.grad.numpy())
    y = checkpoint(segment, x).sum()
    with autocast(dtype):
        y.backward()
    assert seen == [dtype] * 3 + ["float32"] * 2
    np.testing.assert_array_equal(found[0], found[1])


def test_what_happens_inside_is_not_stored() -> None:
    kept: list[weakref.ref[np.ndarray]] = []

    def segment(a: Tensor) -> Tensor:
        inner = ops.exp(a)
        kept.append(weakref.ref(inner.data))
        return inner * inner

    gc.disable()
    try:
        out = checkpoint(segment, leaf(10))
        assert kept[0]() is None
        stored = segment(leaf(10))
        assert kept[1]() is not None
        del out, stored
    finally:
        gc.enable()


def test_backward_twice_needs_retain_graph_and_works_with_it() -> None:
    x = leaf(3)
    y = checkpoint(lambda a: a * a, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 4 * x.detach().numpy())
    with pytest.raises(GradientError, match="retain_graph"):
        y.backward()


def test_overwritten_input_is_detected() -> None:
    x = Tensor(RNG.standard_normal(3))
    w = leaf(3)
    y = checkpoint(lambda a: a * w, x)
    x[0] = 7.0
    with pytest.raises(GradientError, match="checkpoint: an input of shape"):
        y.sum().backward()


def test_no_tape_without_recording_and_a_clear_error_for_other_results() -> None:
    x = leaf(3)
    with tg.no_grad():
        assert not checkpoint(lambda a: a * 2.0, x).requires_grad
    with pytest.raises(TypeError, match="must return tensors"):
        checkpoint(lambda a: "text", x)


def test_layers_that_take_and_give_tuples_of_tuples() -> None:
    """States of an LSTM, a named tuple, ``None`` for weights of attention, indices."""
    lstm = nn.LSTM(3, 3, num_layers=2, dtype=tg.float64)
    attend = nn.MultiheadAttention(3, 1, dtype=tg.float64)
    pool = nn.MaxPool1d(2, return_indices=True)

    def through(run: Callable[..., Any]) -> list[np.ndarray[Any, Any]]:
        lstm.zero_grad()
        attend.zero_grad()
        x, h, c = (Tensor(v, requires_grad=True) for v in values)
        y, states = run(lstm, x, (h, c))
        packed = run(nn.utils.rnn.pack_padded_sequence, y, [4, 2])
        packed, states = run(lstm, packed, hx=states)
        z, weights = run(attend, y, y, y, need_weights=False)
        pooled, places = run(pool, z)
        assert weights is None
        assert not places.requires_grad
        parts = run(lambda: {"all": [packed.data, states[0] * states[1]]})["all"]
        (parts[0].sum() + (parts[1] ** 2).sum() + (pooled * pooled).sum()).backward()
        named = [p.grad for m in (lstm, attend) for p in m.parameters()]
        return [t.numpy() for t in (x.grad, h.grad, c.grad, *named) if t is not None]

    values = [RNG.standard_normal(s) for s in ((4, 2, 3), (2, 2, 3), (2, 2, 3))]
    plain = through(lambda f, *args, **kwargs: f(*args, **kwargs))
    for one, other in zip(through(checkpoint), plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_an_overwritten_input_in_a_tuple_is_detected() -> None:
    x, w = Tensor(RNG.standard_normal(3)), leaf(3)
    y = checkpoint(lambda pair: pair[0] * w * pair[1], (x, leaf(3)))
    x[0] = 7.0
    with pytest.raises(GradientError, match="checkpoint: an input of shape"):
        y.sum().backward()


@pytest.mark.parametrize("create_graph", [False, True])
def test_outputs_with_something_in_common(create_graph: bool) -> None:
    """Also where one output leads to the other, and where the passes are several."""
    values = RNG.standard_normal(3)

    def segment(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shared = ops.tanh(a)
        return shared * 2.0, ops.exp(shared), shared

    def through(run: Callable[..., Any]) -> list[np.ndarray[Any, Any]]:
        x = Tensor(values, requires_grad=True)
        a, b, c = run(segment, x)
        late = ops.exp(a * b) * b
        (g,) = grad((late * a).sum() + c.sum(), x, create_graph=create_graph, retain_graph=True)
        if create_graph:
            (g,) = grad((g**2).sum(), x, retain_graph=True)
        (one,) = grad(a.sum(), x, retain_graph=True)
        b.sum().backward()
        assert x.grad is not None
        return [g.numpy(), one.numpy(), x.grad.numpy()]

    plain = through(lambda f, *args: f(*args))
    for one, other in zip(through(checkpoint), plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_outputs_are_computed_again_once_in_a_pass() -> None:
    calls = []

    def segment(a: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        shared = ops.tanh(a)
        return shared * 2.0, ops.exp(shared)

    a, b = checkpoint(segment, leaf(3))
    (a * b).sum().backward()
    assert len(calls) == 2
