"""Recurrent layers and cells against PyTorch: values, gradients, lengths, weights both ways."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)
from tensorgrad.ops import recurrence, recurrence_loops

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

needs_torch = pytest.mark.skipif("torch is None", reason="compares with PyTorch")
KINDS = ["RNN", "LSTM", "GRU"]
RNG = np.random.default_rng


def flat(result: Any) -> list[Any]:
    """The tensors in tuples, however deep."""
    if isinstance(result, tuple | list):
        return [y for part in result for y in flat(part)]
    return [] if result is None else [result]


def theirs_of(layer: Any) -> Any:
    """PyTorch's layer with the same options and weights."""
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional",
             "proj_size", "nonlinearity", "dropout")  # fmt: skip
    options = {k: getattr(layer, k) for k in names if hasattr(layer, k)}
    if not isinstance(layer, nn.LSTM):
        options.pop("proj_size", None)
    their: Any = getattr(torch.nn, type(layer).__name__)(**options, dtype=torch.float64)
    state = {k: torch.tensor(v.numpy()) for k, v in layer.state_dict().items()}
    their.load_state_dict(state)
    return their


def drawn_options(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """Options of a layer at random."""
    options: dict[str, Any] = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
        "bidirectional": bool(rng.integers(2)),
    }
    if kind == "LSTM" and rng.integers(2):
        options["proj_size"] = 2
    if kind == "RNN" and rng.integers(2):
        options["nonlinearity"] = "relu"
    return options


def states_of(layer: Any, batch: int | None, rng: np.random.Generator) -> Any:
    """First states at random, as arrays."""
    count = layer.num_layers * (1 + layer.bidirectional)
    middle = () if batch is None else (batch,)
    sizes = layer._state_sizes()
    found = [rng.standard_normal((count, *middle, size)) for size in sizes]
    return found[0] if len(found) == 1 else tuple(found)


def leaves(arrays: Any, make: Any) -> Any:
    return tuple(make(a) for a in arrays) if isinstance(arrays, tuple) else make(arrays)


def ours(a: Any) -> Tensor:
    return Tensor(a, requires_grad=True)


def their(a: Any) -> Any:
    return torch.tensor(a, requires_grad=True)


def assert_equal_with_gradients(
    layer: Any, other: Any, found: Any, wanted: Any, inputs: Any, inputs_there: Any
) -> None:
    """Values, and the gradients of a weighted sum of all of them."""
    loss, loss_there = Tensor(0.0, dtype="float64"), torch.zeros((), dtype=torch.float64)
    rng = RNG(1)
    for y, z in zip(flat(found), flat(wanted), strict=True):
        assert y.shape == tuple(z.shape)
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-13)
        w = rng.standard_normal(y.shape)
        loss, loss_there = loss + (y * Tensor(w)).sum(), loss_there + (z * torch.tensor(w)).sum()
    loss.backward()
    loss_there.backward()  # type: ignore[no-untyped-call]
    for x, z in zip(flat(inputs), flat(inputs_there), strict=True):
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-10, atol=1e-11)
    parameters = dict(other.named_parameters())
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(
            p.grad.numpy(), parameters.pop(name).grad.numpy(), rtol=1e-10, atol=1e-11, err_msg=name
        )
    assert not parameters


@needs_torch
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_pytorchs(kind: str, seed: int) -> None:
    """Random options, sizes, layouts: outputs, last states, gradients of everything."""
    rng = RNG(seed)
    options = drawn_options(rng, kind)
    layer = getattr(nn, kind)(3, 4, dtype="float64", **options)
    other = theirs_of(layer)
    batch = [1, None, 3, 5, 0, None][seed]
    steps = int(rng.integers(1, 6))
    shape = (steps, 3) if batch is None else (steps, batch, 3)
    if options["batch_first"] and batch is not None:
        shape = (batch, steps, 3)
    x = rng.standard_normal(shape)
    mine, there = ours(x), their(x)
    if seed % 2:
        state = states_of(layer, batch, rng)
        mine_h, there_h = leaves(state, ours), leaves(state, their)
        found, wanted = layer(mine, mine_h), other(there, there_h)
        assert_equal_with_gradients(layer, other, found, wanted, [mine, mine_h], [there, there_h])
    else:
        found, wanted = layer(mine), other(there)
        assert_equal_with_gradients(layer, other, found, wanted, [mine], [there])


@needs_torch
@pytest.mark.parametrize("how", ["a list", "a tensor", "packed"])
@pytest.mark.parametrize("lengths", [[4, 1, 3, 5], [2, 2, 6, 1]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_pytorchs_packed_sequences(kind: str, lengths: list[int], how: str) -> None:
    """Outputs, states, gradients; what lies behind the ends is not read."""
    rng = RNG(len(how) + sum(lengths))
    layer = getattr(nn, kind)(2, 3, dtype="float64", **drawn_options(rng, kind))
    other = theirs_of(layer)
    x = rng.standard_normal((4, 6, 2) if layer.batch_first else (6, 4, 2))
    state = states_of(layer, 4, rng)
    there, there_h = their(x), leaves(state, their)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        there, torch.tensor(lengths), layer.batch_first, enforce_sorted=False
    )
    y, last = other(packed, there_h)
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(y, layer.batch_first, total_length=6)
    for row, n in zip(x if layer.batch_first else x.swapaxes(0, 1), lengths):
        row[n:] = np.nan
    mine, mine_h = ours(x), leaves(state, ours)
    if how == "packed":
        inside = pack_padded_sequence(mine, lengths, layer.batch_first, enforce_sorted=False)
        out, end = layer(inside, mine_h)
        for a, b in zip(out, y, strict=True):
            np.testing.assert_allclose(
                a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14
            )
        found, counts = pad_packed_sequence(out, layer.batch_first, total_length=6)
        assert counts.tolist() == lengths
    else:
        given: Any = lengths if how == "a list" else Tensor(lengths)
        found, end = layer(mine, mine_h, lengths=given)
    assert_equal_with_gradients(
        layer, other, (found, end), (wanted, last), [mine, mine_h], [there, there_h]
    )


@needs_torch
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell", "relu"])
def test_cells_are_pytorchs(kind: str, batch: int | None) -> None:
    rng = RNG(3)
    options: dict[str, Any] = {"nonlinearity": "relu"} if kind == "relu" else {}
    name = "RNNCell" if kind == "relu" else kind
    layer = getattr(nn, name)(3, 4, bias=batch is None, dtype="float64", **options)
    other = getattr(torch.nn, name)(3, 4, bias=batch is None, dtype=torch.float64, **options)
    other.load_state_dict({k: torch.tensor(v.numpy()) for k, v in layer.state_dict().items()})
    middle = () if batch is None else (batch,)
    x, h, c = (rng.standard_normal((*middle, n)) for n in (3, 4, 4))
    state = (h, c) if kind == "LSTMCell" else h
    mine, mine_h = ours(x), leaves(state, ours)
    there, there_h = their(x), leaves(state, their)
    found, wanted = layer(mine, mine_h), other(there, there_h)
    assert_equal_with_gradients(layer, other, found, wanted, [mine, mine_h], [there, there_h])
    for a, b in zip(flat(layer(mine)), flat(other(there)), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14)


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_float32_to_its_precision_on_longer_sequences(kind: str) -> None:
    layer = getattr(nn, kind)(8, 16, 2, bidirectional=True)
    other = theirs_of(layer).float()
    x = RNG(0).standard_normal((40, 5, 8)).astype(np.float32)
    for a, b in zip(flat(layer(Tensor(x))), flat(other(torch.tensor(x))), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


@needs_torch
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_both_ways(kind: str) -> None:
    """Names, shapes, order and gates of PyTorch's state dict; and its distribution."""
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    if kind == "LSTM":
        options["proj_size"] = 5
    there = getattr(torch.nn, kind)(3, 16, **options)
    layer = getattr(nn, kind)(3, 16, **options)
    assert [(k, v.shape) for k, v in layer.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in there.state_dict().items()
    ]
    for p in layer.parameters():
        assert abs(p.detach().numpy()).max() <= 0.25
    assert np.std([*layer.parameters()][1].detach().numpy()) == pytest.approx(
        0.25 / 3**0.5, rel=0.1
    )
    layer.load_state_dict({k: Tensor(v.numpy()) for k, v in there.state_dict().items()})
    x = RNG(0).standard_normal((4, 2, 3)).astype(np.float32)
    back = getattr(torch.nn, kind)(3, 16, **options)
    back.load_state_dict({k: torch.tensor(v.numpy()) for k, v in layer.state_dict().items()})
    for module in (there, back):
        for a, b in zip(flat(layer(Tensor(x))), flat(module(torch.tensor(x))), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("numbers", [1, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_the_inputs_part_may_be_computed_in_pieces(
    kind: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one step, or of a few and a rest, in both directions."""
    layer = getattr(nn, kind)(3, 4, bidirectional=True, dtype="float64")
    x = Tensor(RNG(0).standard_normal((11, 2, 3)))
    wanted = layer(x)[0].detach().numpy()
    monkeypatch.setattr(recurrence_loops, "_AT_A_TIME", numbers)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), wanted, rtol=1e-13, atol=1e-14)


@needs_torch
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", KINDS)
def test_second_gradients_are_pytorchs(kind: str) -> None:
    """A penalty on the gradients of everything, through two layers in two directions."""
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "dtype": "float64"}
    layer = getattr(nn, kind)(2, 3, **options)
    other = theirs_of(layer)
    x = RNG(0).standard_normal((4, 2, 2))
    mine, there = ours(x), their(x)
    first = tg.autograd.grad(
        layer(mine)[0].square().sum(), [mine, *layer.parameters()], create_graph=True
    )
    tg.stack([g.square().sum() for g in first]).sum().backward()
    first_there = torch.autograd.grad(
        other(there)[0].square().sum(), [there, *other.parameters()], create_graph=True
    )
    torch.stack([g.square().sum() for g in first_there]).sum().backward()  # type: ignore[no-untyped-call]
    for a, b in zip(first, first_there, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-11)
    leaves_there = [there, *other.parameters()]
    for a, b in zip([mine, *layer.parameters()], leaves_there, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_some_inputs_alone_are_the_same_and_nothing_waits_afterwards(
    kind: str,
) -> None:
    layer = getattr(nn, kind)(2, 3, dtype="float64")
    x = ours(RNG(0).standard_normal((4, 2, 2)))
    inputs = [x, *layer.parameters()]
    loss = layer(x)[0].square().sum()
    wanted = tg.autograd.grad(loss, inputs, retain_graph=True)
    for create_graph in (False, True):
        for k, leaf in enumerate(inputs):
            (g,) = tg.autograd.grad(loss, leaf, retain_graph=True, create_graph=create_graph)
            np.testing.assert_allclose(
                g.detach().numpy(), wanted[k].numpy(), rtol=1e-12, atol=1e-14
            )
    del g
    gc.collect()
    assert not recurrence._FOUND


def test_gradients_of_biases_are_apart_and_a_tensor_may_be_given_twice() -> None:
    layer = nn.LSTM(2, 3, dtype="float64")
    x = Tensor(RNG(0).standard_normal((4, 2, 2)))
    layer(x)[0].sum().backward()
    first, second = layer.bias_ih_l0.grad, layer.bias_hh_l0.grad
    assert first is not None
    assert second is not None
    assert not np.shares_memory(first.numpy(), second.numpy())
    s, weights = ours(RNG(1).standard_normal((2, 3))), (layer.weight_ih_l0, layer.weight_hh_l0)
    loss = nn.functional.lstm(x, *weights, None, None, s, s)[0].square().sum()
    (plain,) = tg.autograd.grad(loss, s, retain_graph=True)
    (recorded,) = tg.autograd.grad(loss, s, create_graph=True)
    np.testing.assert_allclose(recorded.detach().numpy(), plain.numpy(), rtol=1e-12, atol=1e-14)


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    layer, x = nn.LSTM(4, 64), tg.random.normal((200, 8, 4))
    wanted = layer(x)[0].detach().numpy()
    with tg.no_grad():
        np.testing.assert_array_equal(layer(x)[0].numpy(), wanted)
        tracemalloc.start()
        layer(x)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 3 * wanted.nbytes  # with the gates of all steps it would be six times


# --- packing --------------------------------------------------------------------------------------


@needs_torch
def test_packing_is_pytorchs() -> None:
    theirs = torch.nn.utils.rnn
    rng = RNG(0)
    arrays = [rng.standard_normal((n, 2)) for n in (2, 4, 1, 4)]
    tensors, there = [Tensor(a) for a in arrays], [torch.tensor(a) for a in arrays]
    for side in ("right", "left"):
        for first in (False, True):
            np.testing.assert_array_equal(
                pad_sequence(tensors, first, 1.5, side).numpy(),
                theirs.pad_sequence(there, first, 1.5, side).numpy(),
            )
    packed, packed_there = pack_sequence(tensors, False), theirs.pack_sequence(there, False)
    np.testing.assert_array_equal(packed.data.numpy(), packed_there.data.numpy())
    assert packed.batch_sizes.tolist() == packed_there.batch_sizes.tolist()
    for a, b in zip(unpack_sequence(packed), arrays, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    for a, b in zip(unpad_sequence(pad_sequence(tensors), [2, 4, 1, 4]), arrays, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    x, lengths = pad_packed_sequence(packed, True, -1.0, 6)
    y, _ = theirs.pad_packed_sequence(packed_there, True, -1.0, 6)
    np.testing.assert_array_equal(x.numpy(), y.numpy())
    assert lengths.tolist() == [2, 4, 1, 4]
    assert packed.to("float32").data.dtype == tg.float32


def test_packing_keeps_gradients_apart() -> None:
    x = ours(RNG(0).standard_normal((3, 2, 2)))
    packed = pack_padded_sequence(x, [3, 1])
    assert packed.data.shape == (4, 2)
    (packed.data * Tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()
    assert x.grad is not None
    assert x.grad[..., 0].tolist() == [[1, 2], [3, 0], [4, 0]]


WRONG_PACKING: dict[str, tuple[Any, type[Exception], str]] = {
    "not sorted": (lambda x: pack_padded_sequence(x, [1, 3]), ValueError, "enforce_sorted=False"),
    "too long": (lambda x: pack_padded_sequence(x, [4, 1]), ValueError, "from 1 to the number"),
    "empty": (lambda x: pack_padded_sequence(x, [3, 0]), ValueError, "from 1 to the number"),
    "not whole": (lambda x: pack_padded_sequence(x, [3, 1.5]), ValueError, "integers"),
    "too few": (lambda x: pack_padded_sequence(x, [3]), ShapeError, "one length for each"),
    "total": (
        lambda x: pad_packed_sequence(pack_padded_sequence(x, [3, 1]), total_length=2),
        ValueError,
        "at least the length",
    ),
    "nothing": (lambda x: pad_sequence([]), ValueError, "one sequence or more"),
    "side": (lambda x: pad_sequence([x], padding_side="top"), ValueError, "padding_side"),
    "axes": (lambda x: pad_sequence([x, x[:, :1]]), ShapeError, "the same axes"),
    "counts": (lambda x: unpad_sequence(x, [3]), ShapeError, "one length for each"),
    "sizes": (
        lambda x: pad_packed_sequence(PackedSequence(x[0], Tensor([2, 2]))),
        ShapeError,
        "add up to 4 steps",
    ),
}


@pytest.mark.parametrize("name", WRONG_PACKING)
def test_packing_says_what_is_wrong(name: str) -> None:
    call, error, match = WRONG_PACKING[name]
    with pytest.raises(error, match=match):
        call(tg.zeros((3, 2, 4)))


# --- dropout, modes, programs ---------------------------------------------------------------------


def test_dropout_lies_between_layers_in_training_only() -> None:
    def values(layer: Any) -> list[Any]:
        return [y.detach().numpy() for y in flat(layer(tg.ones((3, 4, 2))))]

    plain = nn.LSTM(2, 64, 2)
    with_p = {p: nn.LSTM(2, 64, 2, dropout=p) for p in (0.5, 1.0)}
    for layer in with_p.values():
        layer.load_state_dict(plain.state_dict())
        layer.eval()
        np.testing.assert_array_equal(values(layer)[0], values(plain)[0])
        layer.train()
    nothing = tg.zeros((3, 4, 64))
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    second = [getattr(plain, f"{name}_l1") for name in names]
    wanted = nn.functional.lstm(nothing, *second)[0]
    np.testing.assert_allclose(values(with_p[1.0])[0], wanted.detach().numpy(), rtol=1e-6)
    tg.manual_seed(0)
    first = values(with_p[0.5])
    assert not np.array_equal(first[0], values(with_p[0.5])[0])
    np.testing.assert_allclose(first[1][0], values(plain)[1][0], rtol=1e-6)
    with pytest.warns(UserWarning, match="num_layers=1"):
        nn.GRU(2, 3, dropout=0.5)


@pytest.mark.parametrize("kind", [*KINDS, "lengths", "cell"])
def test_a_step_compiles_and_does_what_eager_mode_does(kind: str) -> None:
    def build() -> tuple[Any, Any]:
        tg.manual_seed(0)
        if kind == "cell":
            net: Any = nn.LSTMCell(3, 4)
        else:
            net = getattr(nn, "LSTM" if kind == "lengths" else kind)(3, 4, 2, bidirectional=True)
        return net, tg.optim.SGD(net.parameters(), lr=0.1)

    def run(net: Any, optimizer: Any, x: Tensor, n: Tensor) -> Tensor:
        optimizer.zero_grad()
        if kind == "cell":
            state: Any = None
            for t in range(x.shape[0]):
                state = net(x[t], state)
            y = state[0]
        elif kind == "lengths":
            y = net(x, lengths=n)[0]
        else:
            y = net(x)[0]
        loss = (y * y).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    eager, compiled = build(), build()
    step = tg.compile(lambda x, n: run(*compiled, x, n))
    rng = RNG(0)
    for k in range(4):
        x, n = Tensor(rng.standard_normal((5, 2, 3)), dtype="float32"), Tensor([5 - k, 1 + k])
        assert step(x, n).item() == pytest.approx(run(*eager, x, n).item(), rel=1e-5)
    assert step.captures == 1
    if kind != "cell":  # one loop forward and one backward for each direction of each layer
        names = [i.op.name for i in step.program()]
        name = "lstm" if kind == "lengths" else kind.lower()
        assert (names.count(name), names.count(f"{name}_backward")) == (4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cuda_path_gives_the_same(kind: str) -> None:
    """On the stand-in for CuPy: packed, padded with lengths, with states of its own."""
    rng = RNG(0)
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True, dtype="float64")
    x, state = rng.standard_normal((5, 3, 3)), states_of(layer, 3, rng)
    weights, lengths = layer.state_dict(), [2, 5, 1]

    def results(device: str) -> list[Any]:
        net = getattr(nn, kind)(3, 4, 2, bidirectional=True, dtype="float64", device=device)
        net.load_state_dict(weights)
        given = Tensor(x, device=device, requires_grad=True)
        first = leaves(state, lambda a: Tensor(a, device=device))
        y, last = net(given, first, lengths)
        packed = pack_padded_sequence(given, lengths, enforce_sorted=False)
        z, end = net(packed, first)
        found = flat((y, last, pad_packed_sequence(z), end))
        (y.square().sum() + z.data.sum()).backward()
        return [a.detach().cpu().numpy() for a in (*found, given.grad, net.weight_hh_l1.grad)]

    wanted = results("cpu")
    with cupy_standin.installed():
        for a, b in zip(results("cuda"), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_a_batch_without_sequences_and_a_sequence_that_is_not_a_number() -> None:
    """What one sequence holds does not reach the others."""
    layer = nn.LSTM(3, 4)
    y, (h, _) = layer(tg.zeros((5, 0, 3)), lengths=[])
    assert (y.shape, h.shape) == ((5, 0, 4), (1, 0, 4))
    y.sum().backward()
    assert layer.weight_ih_l0.grad is not None
    assert not layer.weight_ih_l0.grad.numpy().any()
    x = RNG(0).standard_normal((5, 3, 3)).astype(np.float32)
    wanted = layer(Tensor(x))[0].detach().numpy()
    x[2, 1] = np.nan
    given = Tensor(x, requires_grad=True)
    y = layer(given)[0]
    np.testing.assert_array_equal(y.detach().numpy()[:, ::2], wanted[:, ::2])
    assert np.isnan(y.detach().numpy()[2:, 1]).all()
    assert np.isfinite(y.detach().numpy()[:2, 1]).all()
    y[:, ::2].sum().backward()
    assert given.grad is not None
    assert np.isfinite(given.grad.numpy()[:, ::2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_check_and_summary(kind: str) -> None:
    layer = getattr(nn, kind)(3, 4, 2, batch_first=True, bidirectional=True)
    summary = layer.summary((5, 6, 3))
    assert summary.rows[0].output_shape == (5, 6, 8)
    weights = sum(p.size for p in layer.parameters() if p.ndim == 2)
    assert summary.flops is not None
    assert 2 * weights * 30 <= summary.flops <= 3 * weights * 30
    last = (4, 5, 4)
    assert layer.check((5, 6, 3)) == ((5, 6, 8), (last, last) if kind == "LSTM" else last)

    class Model(nn.Module):
        def __init__(self) -> None:
            self.recurrent = layer
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.recurrent(x)[0])

    with pytest.raises(nn.ModelError) as caught:
        Model().check((5, 6, 7))
    assert [(p.path, p.axis) for p in caught.value.problems] == [("recurrent", 2), ("head", 2)]
    assert "input_size=7 here" in caught.value.problems[0].fix
    with pytest.raises(nn.ModelError, match=r"must have shape \(batch, steps, 3\)"):
        layer.check((5, 6, 7, 3))


def test_repr() -> None:
    assert repr(nn.LSTM(3, 4, 2, batch_first=True, proj_size=2)) == (
        "LSTM(3, 4, proj_size=2, num_layers=2, batch_first=True)"
    )
    assert repr(nn.RNN(3, 4, nonlinearity="relu", bias=False)) == (
        "RNN(3, 4, nonlinearity='relu', bias=False)"
    )
    assert repr(nn.GRUCell(3, 4)) == "GRUCell(input_size=3, hidden_size=4, bias=True)"


# --- mistakes -------------------------------------------------------------------------------------


def test_lengths_out_of_range_are_errors_in_a_program_too() -> None:
    layer = nn.LSTM(3, 2)
    step = tg.compile(lambda x, n: layer(x, lengths=n)[0])
    x = tg.ones((5, 2, 3))
    good = step(x, Tensor([5, 2]))
    step(x, Tensor([1, 4]))
    with pytest.raises(IndexError, match=r"number of steps, 5; got \[-1, 5\]"):
        step(x, Tensor([-1, 5]))
    np.testing.assert_array_equal(step(x, Tensor([5, 2])).numpy(), good.numpy())


X = tg.zeros((5, 2, 3))
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "features": (lambda: nn.LSTM(4, 2)(X), ShapeError, r"\(steps, batch, 4\)"),
    "rank": (lambda: nn.LSTM(3, 2)(X[None]), ShapeError, r"got \(1, 5, 2, 3\)"),
    "no steps": (lambda: nn.GRU(3, 2)(X[:0]), ShapeError, "one step or more"),
    "h0": (lambda: nn.GRU(3, 2)(X, tg.zeros((1, 3, 2))), ShapeError, r"h0 must have .*\(1, 2, 2\)"),
    "no pair": (lambda: nn.LSTM(3, 2)(X, tg.zeros((1, 2, 2))), TypeError, r"pair of tensors"),
    "c0": (
        lambda: nn.LSTM(3, 4, proj_size=2)(X, (tg.zeros((1, 2, 2)), tg.zeros((1, 2, 2)))),
        ShapeError,
        r"c0 must have shape \(1, 2, 4\)",
    ),
    "lengths": (lambda: nn.RNN(3, 2)(X, lengths=[5, 6]), ValueError, "from 1 to the number"),
    "a tensor": (
        lambda: nn.GRU(3, 2)(X, lengths=Tensor([5, 6])), IndexError, r"steps, 5; got \[5, 6\]"
    ),
    "none": (lambda: nn.LSTM(3, 2)(X, lengths=Tensor([0, 5])), IndexError, "from 1 to the number"),
    "as many": (lambda: nn.RNN(3, 2)(X, lengths=[5]), ShapeError, "one number for each sequence"),
    "whole": (lambda: nn.RNN(3, 2)(X, lengths=Tensor([1.0, 2.0])), DtypeError, "integers"),
    "single": (lambda: nn.RNN(3, 2)(X[0], lengths=[2]), ShapeError, "a batch of sequences"),
    "twice": (
        lambda: nn.RNN(3, 2)(pack_padded_sequence(X, [5, 5]), lengths=[5, 5]),
        ValueError,
        "lengths of its own",
    ),
    "size": (lambda: nn.LSTM(3, 0), ValueError, "hidden_size must be a positive integer"),
    "layers": (lambda: nn.LSTM(3, 1, 0), ValueError, "num_layers must be a positive integer"),
    "dropout": (lambda: nn.LSTM(3, 1, 2, dropout=1.5), ValueError, r"dropout must lie in \[0, 1\]"),
    "projection": (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "below hidden_size, 4"),
    "activation": (lambda: nn.RNN(3, 4, nonlinearity="gelu"), ValueError, '"tanh" or "relu"'),
    "of a cell": (lambda: nn.RNNCell(3, 4, nonlinearity="gelu"), ValueError, '"tanh" or "relu"'),
    "cell": (lambda: nn.GRUCell(3, 4)(X), ShapeError, r"\(batch, 3\) or \(3,\)"),
    "state": (
        lambda: nn.GRUCell(3, 4)(X[0], tg.zeros((1, 4))), ShapeError, r"must have shape \(2, 4\)"
    ),
    "weights": (
        lambda: nn.functional.gru(X, tg.zeros((6, 3)), tg.zeros((8, 2))),
        ShapeError,
        r"\(3 \* hidden, hidden\); got \(8, 2\)",
    ),
    "bias": (
        lambda: nn.functional.rnn(X, tg.zeros((2, 3)), tg.zeros((2, 2)), tg.zeros(3)),
        ShapeError,
        r"bias_ih must have shape \(2,\)",
    ),
    "function": (
        lambda: nn.functional.rnn(X, X, X, nonlinearity="sin"), ValueError, '"tanh" or "relu"'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name: str) -> None:
    call, error, match = WRONG[name]
    with pytest.raises(error, match=match):
        call()
