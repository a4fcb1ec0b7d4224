"""The networks of ``nn.models``: PyTorch's figures in training, and what each promises besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from sampler import host
from standin import cupy_standin

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional, models

pytest.importorskip("torch")

import torch
from nn import torch_models as twins

STEPS = 20


@dataclass(frozen=True, eq=False)
class Run:
    """A network of either library, a batch to train it on, and how."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    x: Any
    labels: Any
    lr: float
    steps: int = STEPS
    dtype: str = "float32"


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def labels(most: int, *shape: int) -> Any:
    return np.random.default_rng(1).integers(0, most, shape)


class LstmClassifier(nn.Module):
    """A sequence to logits, by the last output of two layers."""

    def __init__(self, features: int, hidden: int, num_classes: int) -> None:
        self.lstm = nn.LSTM(features, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


RUNS = [
    Run(
        "BERT",
        lambda: models.BERT(13, 16, 1, 2, 32, max_position_embeddings=12, dropout=0.0),
        lambda: twins.BERT(13, 16, 1, 2, 32, 12),
        labels(13, 4, 12), labels(16, 4, 12), lr=0.1,
    ),
    Run(
        "GPT",
        lambda: models.GPT(13, 12, n_layer=2, n_head=2, n_embd=16),
        lambda: twins.GPT(13, 12, 2, 2, 16),
        labels(13, 4, 12), labels(13, 4, 12), lr=0.5,
    ),
    Run(
        "LeNet", lambda: models.LeNet(4, 1, 16), lambda: twins.LeNet(4, 1, 16),
        numbers(6, 1, 16, 16), labels(4, 6), lr=0.02,
    ),
    Run(
        "ResNet-152", lambda: models.CifarResNet(152, width=2),
        lambda: twins.CifarResNet(152, width=2), numbers(4, 3, 8, 8), labels(10, 4), lr=0.01,
        dtype="float64",  # in float32 so deep a one amplifies each rounding, here and there
    ),
    Run(
        "ResNet-14", lambda: models.CifarResNet(14, width=4),
        lambda: twins.CifarResNet(14, width=4), numbers(4, 3, 8, 8), labels(10, 4), lr=0.02,
    ),
    Run(
        "ViT", lambda: models.VisionTransformer(8, 4, 2, 2, 16, 16),
        lambda: twins.VisionTransformer(8, 4, 2, 2, 16, 16), numbers(4, 3, 8, 8), labels(10, 4),
        lr=0.05,
    ),
    Run(
        "LSTM", lambda: LstmClassifier(5, 8, 4), lambda: twins.LstmClassifier(5, 8, 4),
        numbers(6, 7, 5), labels(4, 6), lr=0.5,
    ),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Where others work, PyTorch's threads wait for one another, for longer than steps take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def theirs(run: Run) -> tuple[dict[str, Any], list[float]]:
    """The weights PyTorch begins with, and its losses."""
    torch.manual_seed(0)
    model = run.theirs().to(getattr(torch, run.dtype))
    start = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), run.lr, momentum=0.9)
    x, t = torch.as_tensor(run.x), torch.as_tensor(run.labels)
    x = x.to(getattr(torch, run.dtype)) if x.is_floating_point() else x
    losses = []
    for _ in range(run.steps):
        optimizer.zero_grad()
        logits = model(x)
        loss: Any = torch.nn.functional.cross_entropy(logits.flatten(0, -2), t.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return start, losses


def ours(run: Run, start: dict[str, Any], device: str, compiled: bool) -> list[float]:
    """The losses of the same steps here."""
    model = run.ours().to(device, dtype=getattr(tg, run.dtype))
    assert not any(model.load_state_dict(start))
    optimizer = optim.SGD(model.parameters(), run.lr, momentum=0.9)
    kind = None if run.x.dtype.kind == "i" else getattr(tg, run.dtype)
    x = tg.tensor(run.x, device=device, dtype=kind)
    t = tg.tensor(run.labels, device=device).reshape(-1)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        logits = model(x)
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), t)
        loss.backward()
        optimizer.step()
        return loss

    call = tg.compile(step) if compiled else step
    return [float(host(call(x, t))) for _ in range(run.steps)]


@contextmanager
def device(place: str) -> Iterator[str]:
    """The CPU, or the CUDA path on the stand-in for CuPy."""
    with ExitStack() as stack:
        if place == "cuda":
            stack.enter_context(cupy_standin.installed())
        yield place


def marks(run: Run, place: str) -> Any:
    """150 layers take the stand-in and the emulator's compiler long; the parts of BERT and ViT
    are GPT's."""
    return pytest.mark.slow if run.name in ("BERT", "ViT", "ResNet-152") and place == "cuda" else ()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("run", "place"),
    [
        pytest.param(run, place, id=f"{run.name}-{place}", marks=marks(run, place))
        for run in RUNS
        for place in ("cpu", "cuda")
    ],
)
def test_the_loss_falls_as_in_pytorch(run: Run, place: str, compiled: bool) -> None:
    """From the same weights, to the same figure."""
    start, wanted = theirs(run)
    assert wanted[-1] < 0.9 * wanted[0]
    with device(place):
        found = ours(run, start, place, compiled)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


# --- GPT ------------------------------------------------------------------------------------------


def small_gpt(**options: Any) -> models.GPT:
    return models.GPT(9, 6, n_layer=2, n_head=2, n_embd=8, **options).eval()


def test_gpt_generates_the_likeliest_tokens() -> None:
    """Also beyond the longest sequence, where the last ones count."""
    model = small_gpt(generator=tg.Generator(0))
    given = tg.tensor(labels(9, 2, 3))
    found = model.generate(given, 7, temperature=0)
    assert found.shape == (2, 10)
    assert found.dtype == given.dtype
    wanted = given
    for _ in range(7):
        logits = model(wanted[:, -6:])[:, -1]
        wanted = tg.concat([wanted, logits.argmax(axis=-1, keepdims=True)], axis=1)
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_gpt_computes_one_row_for_each_further_token() -> None:
    """What earlier ones left is kept."""
    model = small_gpt()
    rows: list[int] = []
    block: Any = model.transformer.h[1]
    block.attn.c_attn.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    model.generate(tg.tensor(labels(9, 2, 2)), 6)
    assert rows == [2, 1, 1, 1, 1, 6]


def test_gpt_draws_by_the_softmax() -> None:
    """Often what is likely; with a temperature more evenly; with top_k only those."""
    model = small_gpt(generator=tg.Generator(0), bias=False)
    with tg.no_grad():
        model.transformer.wte.weight.copy_(model.transformer.wte.weight * 40)
    given = tg.tensor(np.zeros((4000, 1), np.int64))
    logits = model(given)[0, -1].detach().numpy().astype(float)
    draws = tg.Generator(3)
    for temperature in (1.0, 3.0):
        new = model.generate(given, 1, temperature, generator=draws).numpy()[:, -1]
        wanted = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        np.testing.assert_allclose(np.bincount(new, minlength=9) / 4000, wanted, atol=0.04)
        assert wanted.max() > 0.2
    kept = set(model.generate(given, 1, 3.0, top_k=3, generator=draws).numpy()[:, -1])
    assert kept == set(np.argsort(logits)[-3:])


def test_gpt_generates_the_same_from_the_same_seed() -> None:
    """In evaluation mode, and the mode is as before afterwards."""
    model = small_gpt(dropout=0.5).train()
    given = tg.tensor(labels(9, 2, 3))
    one, two = (model.generate(given, 5, generator=tg.Generator(7)).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert model.training


def test_gpt_refuses_what_it_cannot_do() -> None:
    """With what must hold."""
    model = small_gpt()
    with pytest.raises(ShapeError, match="7 tokens are more than block_size=6"):
        model(tg.tensor(labels(9, 1, 7)))
    with pytest.raises(ShapeError, match=r"shape \(N, T\), got \(2, 0\)"):
        model.generate(tg.tensor(np.zeros((2, 0), np.int64)), 1)
    with pytest.raises(ValueError, match="temperature"):
        model.generate(tg.tensor([[1]]), 1, temperature=-1.0)
    with pytest.raises(ValueError, match="top_k"):
        model.generate(tg.tensor([[1]]), 1, top_k=0)
    with pytest.raises(ValueError, match="n_head must divide n_embd, got 3 and 8"):
        models.GPT(9, 6, n_head=3, n_embd=8)
    with pytest.raises(ValueError, match="vocab_size"):
        models.GPT(0, 6)


def test_gpt_begins_as_nanogpt() -> None:
    """Deviation 0.02, and less before each sum; biases at 0; one embedding, both ways."""
    model = models.GPT(500, 60, n_layer=8, n_embd=64, generator=tg.Generator(0))
    assert model.lm_head.weight is model.transformer.wte.weight
    for name, p in model.named_parameters():
        value = p.detach().numpy()
        if name.endswith("c_proj.weight"):
            assert value.std() == pytest.approx(0.02 / 4, rel=0.05)
        elif p.ndim == 2:
            assert value.std() == pytest.approx(0.02, rel=0.05)
        else:
            np.testing.assert_array_equal(value, ".ln_" in name and name.endswith("weight"))


# --- networks for images --------------------------------------------------------------------------


def parameters(model: Any) -> int:
    return sum(p.size for p in model.parameters())


def test_sizes_are_those_of_the_papers() -> None:
    """Numbers of parameters as torchvision has them, and the tables of the papers."""
    assert parameters(models.resnet50()) == 25_557_032
    assert parameters(models.LeNet()) == 61_706
    for depth, millions in ((20, 0.27), (56, 0.85), (110, 1.7)):
        assert parameters(models.CifarResNet(depth)) == pytest.approx(millions * 1e6, rel=0.02)


def test_work_of_a_resnet() -> None:
    """ResNet-18 on an image of 224 x 224: 1.8 thousand million products (table 1 of the paper)."""
    table = models.resnet18().summary((1, 3, 224, 224))
    assert table.parameters == 11_689_512
    assert table.flops is not None
    assert table.flops / 2 == pytest.approx(1.814e9, rel=0.02)


def test_depths_that_there_are() -> None:
    """6 n + 2, also 152; each layer with weights counts."""
    deep = models.CifarResNet(152, width=1)
    assert sum(type(part) in (nn.Conv2d, nn.Linear) for part in deep.modules()) == 152
    for depth in (2, 21, 153, -4):
        with pytest.raises(ValueError, match=rf"depth must be 6 n \+ 2 .* got {depth}"):
            models.CifarResNet(depth)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: models.LeNet(7), (2, 1, 28, 28)),
        (lambda: models.LeNet(7, 3, 32), (2, 3, 32, 32)),
        (lambda: models.resnet18(7, width=4), (2, 3, 33, 40)),
        (lambda: models.resnet50(7, width=4, in_channels=1), (2, 1, 32, 32)),
        (lambda: models.CifarResNet(8, 7), (2, 3, 9, 12)),
        (lambda: models.VisionTransformer(8, 4, 1, 2, 8, 8, num_classes=7), (2, 3, 8, 8)),
    ],
)
def test_check_and_summary_cover_it(model: Callable[[], Any], shape: tuple[int, ...]) -> None:
    """Logits come out; a channel too many is found and named; what computes has FLOPs."""
    network = model()
    assert network.check(shape) == (2, 7)
    with pytest.raises(nn.ModelError, match="in_channels"):
        network.check((shape[0], shape[1] + 1, *shape[2:]))
    table = network.summary(shape)
    for row in table.rows:
        if row.type in ("Conv2d", "Linear", "BatchNorm2d", "LayerNorm", "MultiheadAttention"):
            assert row.output_shape is not None
            assert row.flops or row.name.endswith("out_proj"), row
    assert table.saved_bytes


def test_residual_blocks_may_begin_as_the_identity() -> None:
    """The last norm of each block at 0."""
    for make, last in ((models.resnet18, "bn2"), (models.resnet50, "bn3")):
        model = make(3, width=2, zero_init_residual=True)
        weights = [p.numpy() for name, p in model.state_dict().items() if f"{last}.weight" in name]
        assert weights
        assert all(not w.any() for w in weights)


def test_initial_values_of_a_resnet() -> None:
    """He's, for the variance of the gradients."""
    model = models.resnet18(width=32, generator=tg.Generator(0))
    block: Any = model.layer3[0]
    value = block.conv1.weight.detach().numpy()
    assert value.std() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_models_refuse_sizes_that_do_not_fit() -> None:
    """With what must hold."""
    with pytest.raises(ValueError, match="image_size must be at least 16, got 15"):
        models.LeNet(image_size=15)
    with pytest.raises(ValueError, match="layers must be the blocks of four stages"):
        models.ResNet(models.BasicBlock, (1, 1, 1))
    with pytest.raises(ValueError, match="patch_size must divide image_size, got 5 and 32"):
        models.VisionTransformer(32, 5)
    with pytest.raises(ValueError, match="num_classes"):
        models.resnet18(0)
