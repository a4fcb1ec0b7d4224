"""MultiheadAttention, transformers, positions and the cache for generation."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from program.executors import EVERY_EXECUTOR
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.errors import DtypeError, GradientError, ShapeError
from tensorgrad.nn import functional
from tensorgrad.ops.random import Generator


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A module and PyTorch's, with the same random values, in float64."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fast path that it will not take
        theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = getattr(nn, name)(*args, **kwargs).double()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.5)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    return ours, theirs


def assert_same(ours: Any, theirs: Any, inputs: list[Any], **kwargs: Any) -> None:
    """Outputs, and gradients of inputs and parameters. An input that is given twice is one."""
    torch = pytest.importorskip("torch")
    results = []
    for module, make in ((ours, Tensor), (theirs, torch.tensor)):
        made = {id(x): make(x.copy()) for x in inputs}
        for x in made.values():
            x.requires_grad = True
        options = {k: make(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        y = module(*[made[id(x)] for x in inputs], **options)
        outputs = [x for x in (y if isinstance(y, tuple) else (y,)) if x is not None]
        loss = sum((x * make(np.cos(np.arange(x.size if make is Tensor else x.numel()))
                                 .reshape(x.shape))).sum() for x in outputs)  # fmt: skip
        loss.backward()
        grads = [x.grad for x in made.values()]
        grads += [p.grad for _, p in sorted(module.named_parameters())]
        results.append([np.asarray(x.detach().numpy()) for x in (*outputs, *grads)])
        for p in module.parameters():
            p.grad = None
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


# --- attention of several heads -------------------------------------------------------------------


def masks(
    rng: np.random.Generator, batch: int, heads: int, queries: int, keys: int
) -> dict[str, Any]:
    """Random masks; each query sees key 0, as PyTorch gives NaN for what sees none."""
    floats = rng.random() < 0.5
    found = {}
    for name, shape in (
        ("attn_mask", (batch * heads, queries, keys) if rng.random() < 0.5 else (queries, keys)),
        ("key_padding_mask", (batch, keys)),
    ):
        if rng.random() < 0.6:
            hidden = rng.random(shape) < 0.5
            hidden[..., 0] = False
            found[name] = np.where(hidden, -np.inf, rng.standard_normal(shape))
            if not floats:
                found[name] = hidden
    return found


@pytest.mark.parametrize("number", range(24))
def test_heads_agree_with_pytorch(number: int) -> None:
    rng = np.random.default_rng(number)
    heads, batch, queries, keys = (int(n) for n in rng.integers(1, [4, 4, 6, 7]))
    size = heads * int(rng.integers(1, 4))
    options: dict[str, Any] = {
        name: bool(rng.integers(2))
        for name in ("bias", "add_bias_kv", "add_zero_attn", "batch_first")
    }
    kind = rng.integers(4)  # of keys and values: as the queries, as each other, of another size
    if kind == 3:
        options.update(kdim=size + 1, vdim=size + 2)
    ours, theirs = pair("MultiheadAttention", size, heads, **options)

    def sequence(length: int, features: int) -> Any:
        shape = (batch, length) if options["batch_first"] else (length, batch)
        return rng.standard_normal((*shape, features))

    query = sequence(queries, size)
    inputs = [query, sequence(keys, size), sequence(keys, size)]
    if kind == 1:
        inputs, keys = [query] * 3, queries
    elif kind == 2:
        inputs = [query, inputs[1], inputs[1]]
    elif kind == 3:
        inputs = [query, sequence(keys, size + 1), sequence(keys, size + 2)]
    given = masks(rng, batch, heads, queries, keys)
    for need_weights, average in ((True, True), (True, False), (False, True)):
        assert_same(
            ours, theirs, inputs, need_weights=need_weights, average_attn_weights=average, **given
        )


@pytest.mark.parametrize("batch_first", [False, True])
def test_heads_without_a_batch(batch_first: bool) -> None:
    ours, theirs = pair("MultiheadAttention", 4, 2, batch_first=batch_first)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    hidden = np.array([[False, True, False, True, True]] * 3)
    assert_same(ours, theirs, [x, y, y], attn_mask=hidden)
    assert_same(ours, theirs, [x, x, x], key_padding_mask=np.array([False, True, False]))
    assert_same(ours, theirs, [x, y, y], need_weights=False, average_attn_weights=False)


def test_causal_heads_need_no_mask() -> None:
    """is_causal says what the mask says, with it and without; further keys are seen by all."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((5, 2, 4)))
    ahead = Tensor(np.triu(np.ones((5, 5), bool), 1))
    hidden = Tensor(rng.random((2, 5)) < 0.3)
    for further in ({}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        options: Any = {"dtype": "float64", **further}
        layer = nn.MultiheadAttention(4, 2, **options)
        for need in (False, True):
            given: Any = {"key_padding_mask": hidden, "need_weights": need}
            wanted = layer(x, x, x, attn_mask=ahead, **given)[0].detach().numpy()
            for mask in (None, ahead):
                found = layer(x, x, x, attn_mask=mask, is_causal=True, **given)[0]
                np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_a_query_that_sees_nothing_gives_the_bias() -> None:
    """With weights and without; nothing becomes NaN."""
    layer = nn.MultiheadAttention(4, 2, batch_first=True, dtype="float64")
    assert layer.out_proj.bias is not None
    layer.out_proj.bias.detach().copy_(Tensor([1.0, 2.0, 3.0, 4.0]))
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4)), requires_grad=True)
    hidden = Tensor(np.array([[True] * 3, [False, False, True]]))
    for need in (True, False):
        y, weights = layer(x, x, x, key_padding_mask=hidden, need_weights=need)
        np.testing.assert_array_equal(y.detach().numpy()[0], [[1, 2, 3, 4]] * 3)
        y.sum().backward()
        assert x.grad is not None
        assert np.isfinite(x.grad.numpy()).all()
        if weights is not None:
            assert not weights.detach().numpy()[0].any()


def test_nothing_infinite_is_computed_on_the_way() -> None:
    """What looks for NaN and infinity finds none where masks hide, to the second order."""
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4)), requires_grad=True)
    layer.double()
    hidden = Tensor(np.array([[True] * 3, [False, True, False], [False] * 3]))
    added = tg.where(hidden, -math.inf, 0.5).double()
    with tg.autograd.detect_anomaly():
        for need in (True, False):
            for mask in (hidden, added):
                y = layer(x, x, x, need_weights=need, attn_mask=mask, is_causal=need)[0]
                (first,) = tg.autograd.grad(y.sum(), [x], create_graph=True)
                first.sum().backward()
    assert x.grad is not None


def test_dropout_of_weights_in_training_alone(own_random_numbers: None) -> None:
    layer = nn.MultiheadAttention(8, 2, dropout=0.5)
    x = Tensor(np.random.default_rng(0).standard_normal((6, 2, 8)).astype(np.float32))
    for need in (True, False):
        results = []
        for seed in (1, 1, 2):
            tg.manual_seed(seed)
            results.append(layer(x, x, x, need_weights=need)[0].detach().numpy())
        np.testing.assert_array_equal(results[0], results[1])
        assert (results[0] != results[2]).any()
    weights = layer(x, x, x, average_attn_weights=False)[1]
    assert weights is not None
    share = float((weights.detach().numpy() == 0).mean())
    assert 0.35 < share < 0.65
    layer.eval()
    plain = [layer(x, x, x, need_weights=need)[0].detach().numpy() for need in (True, False)]
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-6)


def test_static_keys_and_values() -> None:
    """Keys and values that are given for each head."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 2, 4)), rng.standard_normal((12, 4)), rng.standard_normal(12)
    k, v = rng.standard_normal((2, 4, 5, 2))
    o, c = rng.standard_normal((4, 4)), rng.standard_normal(4)
    found = []
    for function, make in (
        (functional.multi_head_attention_forward, Tensor),
        (torch.nn.functional.multi_head_attention_forward, torch.tensor),
    ):
        q = make(x)
        static: Any = {"static_k": make(k), "static_v": make(v)}
        args: Any = (q, q, q, 4, 2, make(w), make(b), None, None, False, 0.0, make(o), make(c))
        call: Any = function
        found.append(call(*args, **static))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, atol=1e-14)


def test_first_values_are_pytorchs() -> None:
    """Xavier's limits for what comes in, a Linear's for what goes out, no bias."""
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True, generator=Generator(0))
    assert layer.in_proj_weight is not None
    assert layer.in_proj_bias is not None
    assert layer.out_proj.bias is not None
    for weight, limit in (
        (layer.in_proj_weight, math.sqrt(6 / (64 + 192))),
        (layer.out_proj.weight, 1 / math.sqrt(64)),
    ):
        values = weight.detach().numpy()
        assert 0.97 * limit < np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert not layer.in_proj_bias.detach().numpy().any()
    assert not layer.out_proj.bias.detach().numpy().any()
    assert layer.bias_k is not None
    std = math.sqrt(2 / (64 + 64))  # of (1, 1, 64): one channel of a field of 64
    assert layer.bias_k.detach().numpy().std() == pytest.approx(std, rel=0.3)
    before = layer.in_proj_weight.tolist()
    layer.reset_parameters(Generator(1))
    assert layer.in_proj_weight.tolist() != before
    layer.reset_parameters(Generator(0))
    apart = nn.MultiheadAttention(64, 4, kdim=10, vdim=20, generator=Generator(0))
    limit = math.sqrt(6 / (64 + 10))
    assert 0.97 * limit < np.abs(apart.k_proj_weight.detach().numpy()).max() <= limit


# --- transformers ---------------------------------------------------------------------------------

SWITCHES = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize(("norm_first", "batch_first", "bias"), SWITCHES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_agree_with_pytorch(
    norm_first: bool, batch_first: bool, bias: bool, activation: str
) -> None:
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {
        "norm_first": norm_first, "batch_first": batch_first, "bias": bias,
        "activation": activation,
    }  # fmt: skip
    args = (6, 2, 10, 0.0)
    x = rng.standard_normal((2, 4, 6) if batch_first else (4, 2, 6))
    memory = rng.standard_normal((2, 5, 6) if batch_first else (5, 2, 6))
    ahead = np.triu(np.ones((4, 4), bool), 1)
    padding = np.array([[False, False, True, True], [False, True, False, False]])
    far = np.array([[False, True, False, False, True], [False, False, False, False, True]])
    ours, theirs = pair("TransformerEncoderLayer", *args, **options)
    assert_same(ours, theirs, [x], src_mask=ahead, src_key_padding_mask=padding)
    assert_same(ours, theirs, [x[0]])
    ours, theirs = pair("TransformerDecoderLayer", *args, **options)
    assert_same(
        ours, theirs, [x, memory], tgt_mask=ahead, tgt_key_padding_mask=padding,
        memory_key_padding_mask=far, memory_mask=np.zeros((4, 5), bool),
    )  # fmt: skip


def test_stacks_agree_with_pytorch() -> None:
    """An encoder, a decoder and both together; their states load both ways."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    src, tgt = rng.standard_normal((5, 2, 6)), rng.standard_normal((4, 2, 6))
    ours, theirs = pair("Transformer", 6, 3, 2, 2, 8, 0.0, activation="gelu", norm_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(4, dtype="float64").numpy()
    wanted = torch.nn.Transformer.generate_square_subsequent_mask(4).numpy()
    np.testing.assert_array_equal(mask, wanted)
    padding = np.array([[False] * 4 + [True], [False, False, True, True, True]])
    assert_same(
        ours, theirs, [src, tgt], tgt_mask=mask, src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )  # fmt: skip
    y = ours(Tensor(src), Tensor(tgt), tgt_is_causal=True).detach().numpy()
    again = ours(Tensor(src), Tensor(tgt), tgt_mask=Tensor(mask)).detach().numpy()
    np.testing.assert_allclose(y, again, rtol=1e-12, atol=1e-14)


def test_a_stack_copies_the_layer_and_ends_with_the_norm() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0)
    stack = nn.TransformerEncoder(layer, 3, nn.LayerNorm(4))
    first, second = stack.layers[0], stack.layers[1]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a is not b
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    x = Tensor(np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32))
    y = x
    for part in stack.layers:
        y = part(y)
    assert stack.norm is not None
    np.testing.assert_array_equal(stack(x).tolist(), stack.norm(y).tolist())
    copied = copy.deepcopy(stack)
    assert copied(x).tolist() == stack(x).tolist()


def test_an_activation_may_be_a_function_or_a_module() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, nn.ReLU())
    other = nn.TransformerEncoderLayer(4, 2, 8, 0.0, functional.relu)
    other.load_state_dict(layer.state_dict())
    x = Tensor(np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32))
    assert layer(x).tolist() == other(x).tolist()
    with pytest.raises(ValueError, match='activation must be "relu", "gelu" or a function'):
        nn.TransformerEncoderLayer(4, 2, activation="tahn")


@EVERY_EXECUTOR
def test_training_as_a_program(executor: str, own_random_numbers: None) -> None:
    """With dropout everywhere: eager mode and programs do the same steps."""
    losses = []
    src = Tensor(np.random.default_rng(0).standard_normal((5, 3, 8)).astype(np.float32))
    tgt = Tensor(np.random.default_rng(1).standard_normal((4, 3, 8)).astype(np.float32))
    for compiled in (False, True):
        model = nn.Transformer(8, 2, 1, 1, 16, 0.2, norm_first=True, generator=Generator(3))
        optimizer = tg.optim.Adam(model.parameters(), lr=1e-3)

        def step(
            src: Tensor, tgt: Tensor, model: Any = model, optimizer: Any = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(src, tgt, tgt_is_causal=True), tgt)
            loss.backward()
            optimizer.step()
            return loss

        run: Any = tg.compile(step, executor=executor) if compiled else step
        tg.manual_seed(0)
        losses.append([float(run(src, tgt).item()) for _ in range(6)])
        assert not compiled or run.executor == executor, run.report()
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][-1] < losses[0][0]


def test_training_on_the_emulated_gpu(own_random_numbers: None) -> None:
    """Eager and as kernels, with dropout everywhere: the steps of the CPU."""
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    x = np.random.default_rng(0).standard_normal((4, 2, 8)).astype(np.float32)
    losses = []
    with cupy_standin.installed():
        for device, compiled in (("cpu", False), ("cuda", False), ("cuda", True)):
            layer = nn.TransformerEncoderLayer(8, 2, 12, 0.2, generator=Generator(3)).to(device)
            optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
            given = Tensor(x, device=device)

            def step(given: Tensor, layer: Any = layer, optimizer: Any = optimizer) -> Tensor:
                optimizer.zero_grad()
                loss = layer(given, is_causal=True).square().mean()
                loss.backward()
                optimizer.step()
                return loss

            run: Any = tg.compile(step) if compiled else step
            tg.manual_seed(0)
            losses.append([float(run(given).item()) for _ in range(3)])
            assert not compiled or run.executor == "cuda", run.report()
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


def test_16_bits() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.0)
    x = np.random.default_rng(0).standard_normal((4, 2, 8)).astype(np.float32)
    wanted = model(Tensor(x), is_causal=True).detach().numpy()
    found = model.to("bfloat16")(Tensor(x, dtype="bfloat16"), is_causal=True)
    assert str(found.dtype) == "bfloat16"
    np.testing.assert_allclose(found.float().detach().numpy(), wanted, atol=0.1)


# --- generation -----------------------------------------------------------------------------------


def caches(count: int, length: int) -> list[nn.KeyValueCache]:
    return [nn.KeyValueCache(2, 2, length, 4, dtype="float64") for _ in range(count)]


@pytest.mark.parametrize("parts", [(1,) * 6, (3, 1, 2), (6,), (4, 2)])
@pytest.mark.parametrize("norm_first", [False, True])
def test_steps_with_a_cache_give_what_the_whole_gives(
    parts: tuple[int, ...], norm_first: bool
) -> None:
    """One by one and several at a time, of an encoder alone and of a decoder."""
    rng = np.random.default_rng(0)
    x, memory = Tensor(rng.standard_normal((6, 2, 8))), Tensor(rng.standard_normal((3, 2, 8)))
    options: Any = {"norm_first": norm_first, "dtype": "float64"}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, **options), 2)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, **options), 2)
    with tg.no_grad():
        wanted = encoder(x, is_causal=True), decoder(x, memory, tgt_is_causal=True)
        held = caches(2, 6), caches(2, 9)
        found: tuple[list[Any], list[Any]] = ([], [])
        start = 0
        for n in parts:
            part = x[start : start + n]
            found[0].append(encoder(part, is_causal=True, caches=held[0]))
            found[1].append(decoder(part, memory, tgt_is_causal=True, caches=held[1]))
            start += n
            assert held[0][0].length == start
    for whole, steps in zip(wanted, found, strict=True):
        joined = np.concatenate([y.numpy() for y in steps])
        np.testing.assert_allclose(joined, whole.numpy(), rtol=1e-10, atol=1e-12)


def test_a_cache_holds_one_piece_of_memory() -> None:
    cache = nn.KeyValueCache(1, 2, 5, 3, value_dim=4)
    before = cache.keys.data, cache.values.data
    for n in (2, 1):
        k, v = cache.append(tg.ones((1, 2, n, 3)), tg.ones((1, 2, n, 4)) * 2.0)
        assert np.shares_memory(k.numpy(), before[0])
        assert np.shares_memory(v.numpy(), before[1])
    assert k.shape == (1, 2, 3, 3)
    assert v.tolist() == np.full((1, 2, 3, 4), 2.0).tolist()
    with pytest.raises(ShapeError, match="more than max_length=5"):
        cache.append(tg.ones((1, 2, 3, 3)), tg.ones((1, 2, 3, 4)))
    with pytest.raises(ShapeError, match="values must have shape"):
        cache.append(tg.ones((1, 2, 1, 3)), tg.ones((1, 2, 2, 4)))
    with pytest.raises(ShapeError, match="keys must have shape"):
        cache.append(tg.ones((2, 1, 3)), tg.ones((1, 2, 1, 4)))
    assert cache.length == 3
    cache.reset()
    assert cache.append(tg.ones((1, 2, 5, 3)), tg.ones((1, 2, 5, 4)))[0].shape == (1, 2, 5, 3)


def test_no_gradient_is_lost_in_a_cache() -> None:
    layer = nn.MultiheadAttention(4, 2)
    cache = nn.KeyValueCache(2, 2, 5, 2)
    x = tg.ones((1, 2, 4))
    with pytest.raises(GradientError, match="no_grad"):
        layer(x, x, x, cache=cache)
    with tg.no_grad():
        layer(x, x, x, cache=cache)
    assert cache.length == 1
    with pytest.raises(ValueError, match="caches must have one for each of 2 layers"):
        nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 2)(x, caches=[cache])


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [6, 7])
def test_sinusoidal_positions(size: int) -> None:
    layer = nn.SinusoidalPositionalEncoding(size, max_len=12, dtype="float64")
    assert list(layer.state_dict()) == []
    table = np.zeros((12, size))
    for p, i in itertools.product(range(12), range(size)):
        angle = p / 10000 ** (2 * (i // 2) / size)
        table[p, i] = math.cos(angle) if i % 2 else math.sin(angle)
    x = np.random.default_rng(0).standard_normal((5, 3, size))
    np.testing.assert_allclose(
        layer(Tensor(x)).numpy(), x + table[:5, None], rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        layer(Tensor(x[:, 0]), 7).numpy(), x[:, 0] + table[7:], rtol=1e-12, atol=1e-14
    )
    first = nn.SinusoidalPositionalEncoding(size, 12, batch_first=True, dtype="float64")
    np.testing.assert_allclose(first(Tensor(x)).numpy(), x + table[:3], rtol=1e-12, atol=1e-14)
    with pytest.raises(ShapeError, match="positions 8 to 12 are not among max_len=12"):
        layer(Tensor(x), 8)
    with pytest.raises(ShapeError, match="must have shape"):
        layer(Tensor(x[..., :-1]))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_products_depend_on_the_distance(interleaved: bool) -> None:
    """And the lengths stay; far away, too, in float32."""
    rng = np.random.default_rng(0)
    layer = nn.RotaryEmbedding(8, interleaved=interleaved)
    q, k = (Tensor(rng.standard_normal((1, 8)).astype(np.float32)) for _ in range(2))
    near = (layer(q, 7) * layer(k, 2)).sum().item()
    far = (layer(q, 100_007) * layer(k, 100_002)).sum().item()
    assert far == pytest.approx(near, abs=1e-5)
    assert (layer(q, 7) * layer(k, 3)).sum().item() != pytest.approx(near, abs=1e-3)
    assert (layer(q, 7) ** 2).sum().item() == pytest.approx((q**2).sum().item(), rel=1e-5)
    whole = Tensor(rng.standard_normal((2, 5, 8)))
    steps = [layer(whole[:, n : n + 1], n).numpy() for n in range(5)]
    np.testing.assert_allclose(
        np.concatenate(steps, axis=1), layer(whole).numpy(), rtol=1e-12, atol=1e-14
    )
    with pytest.raises(ShapeError, match="even number"):
        functional.rotary_embedding(Tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match="dim must be even"):
        nn.RotaryEmbedding(3)


# --- descriptions and errors ----------------------------------------------------------------------


def test_check_and_summary_know_the_layers() -> None:
    model = nn.Sequential(
        nn.Linear(5, 8), nn.SinusoidalPositionalEncoding(8), nn.TransformerEncoderLayer(8, 2, 16),
    )  # fmt: skip
    assert model.check((6, 3, 5)) == (6, 3, 8)
    wrong = nn.Sequential(nn.Linear(5, 6), nn.TransformerEncoderLayer(8, 2, 16))
    with pytest.raises(nn.ModelError) as caught:
        wrong.check((6, 3, 5))
    (problem,) = caught.value.problems
    assert problem.path == "1"
    assert "d_model=6 here or out_features=8 in 0" in problem.fix
    heads = nn.MultiheadAttention(8, 2, kdim=4)
    with pytest.raises(nn.ModelError, match="kdim=3 here"):
        heads.check((6, 3, 8), (5, 3, 3), (5, 3, 8))
    assert heads.check((6, 3, 8), (5, 3, 4), (5, 3, 8)) == ((6, 3, 8), (3, 6, 5))
    both = nn.Transformer(8, 2, 1, 1, 16)
    assert both.check((6, 3, 8), (5, 3, 8)) == (5, 3, 8)
    with pytest.raises(nn.ModelError, match="d_model=7 here"):
        both.check((6, 3, 8), (5, 3, 7))
    summary = nn.TransformerEncoderLayer(8, 2, 16).summary((6, 3, 8))
    products = 2 * 18 * 8 * (24 + 8 + 16 + 16) + 3 * 6 * 6 * 2 * 2 * 8
    assert summary.flops is not None
    assert products < summary.flops < 1.5 * products


def test_what_does_not_fit() -> None:
    layer = nn.MultiheadAttention(4, 2)
    x = tg.ones((3, 2, 4))
    wrong: list[tuple[Any, ...]] = [
        (x, x[..., :3], x), (x, x, x[:2]), (x, x[:, :1], x[:, :1]), (x, x[0], x[0]),
        (x[None], x[None], x[None]),
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(ShapeError, match="query, key and value must have shape"):
            layer(*given)
    with pytest.raises(ShapeError, match=r"attn_mask must have shape \(3, 3\)"):
        layer(x, x, x, attn_mask=tg.ones((3, 2), dtype=tg.bool))
    with pytest.raises(ShapeError, match=r"key_padding_mask must have shape \(2, 3\)"):
        layer(x, x, x, key_padding_mask=tg.ones((3, 2), dtype=tg.bool))
    with pytest.raises(DtypeError, match="truth values"):
        layer(x, x, x, attn_mask=tg.ones((3, 3), dtype=tg.int64))
    with pytest.raises(ShapeError, match="the same batch"):
        nn.Transformer(4, 2, 1, 1, 8)(x, x[:, :1])
    for size, heads in ((5, 2), (4, 0)):
        with pytest.raises(ValueError, match="MultiheadAttention"):
            nn.MultiheadAttention(size, heads)
    with pytest.raises(ValueError, match="dropout must lie in"):
        nn.MultiheadAttention(4, 2, dropout=1.5)
