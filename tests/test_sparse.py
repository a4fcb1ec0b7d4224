"""Gradients that are kept as rows: as tensors, through backward passes, and in optimizers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.autograd import grad
from tensorgrad.errors import CompileError
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.sparse import LazyGradient, SparseGradient

F = nn.functional
ROWS = [4, 1, 4, 0, 4]


def sparse_gradient(rows: list[int] = ROWS, n: int = 6) -> tuple[Tensor, Any]:
    """A table after a backward pass, and what its gradient is."""
    rng = np.random.default_rng(len(rows))
    x = Tensor(rng.standard_normal((n, 3)), requires_grad=True)
    g, dense = rng.standard_normal((len(rows), 3)), np.zeros((n, 3))
    F.embedding(Tensor(rows), x, sparse=True).backward(Tensor(g))
    np.add.at(dense, rows, g)
    return x, dense


def rows_of(x: Tensor) -> SparseGradient:
    assert isinstance(x.grad, SparseGradient)
    return x.grad


# --- as a tensor ----------------------------------------------------------------------------------


def test_rows_and_their_numbers() -> None:
    x, dense = sparse_gradient()
    g = rows_of(x)
    assert g.shape == (6, 3)
    assert (g.ndim, g.size, str(g.dtype), g.device, g.nbytes) == (2, 18, "float64", "cpu", 72)
    assert g.indices.tolist() == [0, 1, 4]
    np.testing.assert_allclose(host(g.values), dense[[0, 1, 4]], rtol=1e-14)
    assert "indices=Tensor([0, 1, 4])" in repr(g)
    assert not g.is_dense


@pytest.mark.parametrize(
    "read",
    [
        lambda g: g.numpy(),
        np.asarray,
        lambda g: host(g * 2.0) / 2.0,
        lambda g: host(1.0 * g),
        lambda g: host(tg.stack([g, g])[1]),
        lambda g: np.array(g.tolist()),
        lambda g: host(g.clone()),
        lambda g: host(copy.deepcopy(g)),
        lambda g: host(pickle.loads(pickle.dumps(g))),
        lambda g: host(g.T.T),
        lambda g: np.array([[g[i, j].item() for j in range(3)] for i in range(6)]),
    ],
)
def test_it_is_dense_when_it_is_read(read: Callable[[Any], Any]) -> None:
    x, dense = sparse_gradient()
    g = rows_of(x)
    for _ in range(2):
        np.testing.assert_allclose(read(g), dense, rtol=1e-14)
    assert g.indices.tolist() == [0, 1, 4]
    np.testing.assert_allclose(host(g.values), dense[[0, 1, 4]], rtol=1e-14)


def test_what_is_written_to_it_counts() -> None:
    x, dense = sparse_gradient()
    g: Any = rows_of(x)
    g *= 2.0
    np.testing.assert_allclose(host(g), 2 * dense, rtol=1e-14)
    g[5, 1] = 7.0
    assert g.indices.tolist() == [0, 1, 4, 5]
    assert host(g.values)[3].tolist() == [0, 7, 0]
    g.copy_(0.0)
    assert g.indices.tolist() == [0, 1, 4]
    assert not host(g.values).any()
    optimizer = optim.SGD([x], lr=0.1)
    optimizer.zero_grad(set_to_none=False)
    F.embedding(Tensor([2]), x, sparse=True).sum().backward()
    assert x.grad is not None
    assert host(x.grad).tolist() == [[0] * 3] * 2 + [[1] * 3] + [[0] * 3] * 3


# --- through backward passes ----------------------------------------------------------------------


def test_accumulated_over_passes() -> None:
    """Each pass adds to the rows; who held the gradient of before still has that."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((9, 4)), requires_grad=True)
    dense = np.zeros((9, 4))
    held: list[tuple[Any, Any]] = []
    for k in range(40):
        rows, g = rng.integers(0, 9, 5), rng.standard_normal((5, 4))
        y = F.embedding(Tensor(rows), x, sparse=True) * 2.0 + F.embedding(rows, x, sparse=True)
        y.backward(Tensor(g))
        np.add.at(dense, rows, 3 * g)
        held.append((x.grad, dense.copy()))
        assert isinstance(x.grad, SparseGradient)
        assert not x.grad.is_dense
        if k % 7 == 0:
            assert x.grad.count <= 27
    for g, right in held:
        np.testing.assert_allclose(host(g), right, rtol=1e-12, atol=1e-12)


def test_beside_dense_contributions() -> None:
    for first in (True, False):
        x = Tensor(np.ones((5, 2)), requires_grad=True)
        for _ in range(2):
            looked = F.embedding(Tensor([1, 1]), x, sparse=True).sum() + x[0].sum() * 10.0
            y = x.sum() * 100.0
            (looked + y if first else y + looked).backward()
        F.embedding(Tensor([3]), x, sparse=True).sum().backward()
        assert type(x.grad) is Tensor
        assert host(x.grad)[:, 0].tolist() == [220, 204, 200, 201, 200]


def test_the_seed_is_not_shared() -> None:
    x = Tensor(np.zeros((4, 2)), requires_grad=True)
    seed = tg.ones((2, 2), dtype="float64")
    F.embedding(Tensor([0, 1]), x, sparse=True).backward(seed)
    seed.copy_(5.0)
    assert host(rows_of(x).values).tolist() == [[1, 1], [1, 1]]


def test_what_is_not_a_leaf_has_a_dense_gradient() -> None:
    x = Tensor(np.ones((4, 2)), requires_grad=True)
    y = x * 3.0
    y.retain_grad()
    F.embedding(Tensor([2, 2]), y, sparse=True).sum().backward()
    assert type(x.grad) is Tensor
    assert type(y.grad) is Tensor
    assert host(x.grad)[:, 0].tolist() == [0, 0, 6, 0]


def test_asked_for_gradients_are_dense() -> None:
    x = Tensor(np.ones((4, 2)), requires_grad=True)
    (g,) = grad(F.embedding(Tensor([2, 2]), x, sparse=True).sum(), x)
    assert type(g) is Tensor
    assert host(g)[:, 0].tolist() == [0, 0, 2, 0]
    F.embedding(Tensor([1]), x, sparse=True).sum().backward(create_graph=True)
    assert type(x.grad) is Tensor
    assert host(x.grad)[:, 0].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("way", ["looks", "doubles", "returns it"])
def test_hooks_are_shown_it_and_may_replace_it(way: str) -> None:
    x = Tensor(np.ones((4, 2)), requires_grad=True)
    shown: list[Tensor] = []

    def hook(g: Tensor) -> Tensor | None:
        shown.append(g)
        return {"looks": None, "doubles": g * 2.0, "returns it": g}[way]

    x.register_hook(hook)
    F.embedding(Tensor([2, 2]), x, sparse=True).sum().backward()
    assert isinstance(shown[0], SparseGradient)
    assert x.grad is not None
    assert isinstance(x.grad, SparseGradient) is (way != "doubles")
    assert host(x.grad)[:, 0].tolist() == [0, 0, 4 if way == "doubles" else 2, 0]
    x.grad.copy_(9.0)
    assert host(shown[0])[:, 0].tolist() == [0, 0, 2, 0]


def test_whoever_watches_changes_nothing() -> None:
    x, dense = sparse_gradient()
    token = MODE.set(current_mode()._replace(observers=(Observer(),)))
    try:
        x2, _ = sparse_gradient()
    finally:
        MODE.reset(token)
    np.testing.assert_array_equal(host(rows_of(x2).values), host(rows_of(x).values))
    np.testing.assert_allclose(host(rows_of(x2)), dense)


# --- large leaves of which few rows are looked up -------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adagrad", "Adam", "RMSprop"])
def test_large_tables_train_as_if_dense(name: str) -> None:
    """The zeros are made where somebody needs them; all numbers are those of dense gradients."""
    ends = []
    start = np.random.default_rng(0).standard_normal((5000, 64)).astype(np.float32)
    for watched in (True, False):
        x = Tensor(start, requires_grad=True)
        rng = np.random.default_rng(1)
        make: Any = {"momentum": optim.SGD}.get(name) or getattr(optim, name)
        options = {"momentum": 0.9} if name == "momentum" else {}
        optimizer = make([x], lr=0.1, **options)
        for k in range(4):
            optimizer.zero_grad()
            rows = Tensor(rng.integers(-5000, 5000, (10, 20)))
            y = tg.tanh(x[rows]).sum() if k % 2 else F.embedding(rows, x, 3).square().sum()
            if watched:
                x.register_hook(lambda g: g * 1.0)
            y.backward()
            assert isinstance(x.grad, LazyGradient) is not watched
            optimizer.step()
        ends.append(host(x.detach()))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_many_rows_are_dense() -> None:
    x = Tensor(np.zeros((5000, 64)), requires_grad=True)
    parts = [x[np.arange(k, 5000, 10)].sum() for k in range(5)]
    (parts[0] + parts[1]).backward(retain_graph=True)
    assert isinstance(x.grad, LazyGradient)
    assert not isinstance(x.grad, SparseGradient)
    optim.SGD([x]).zero_grad()
    (parts[0] + parts[1] + parts[2] + parts[3] + parts[4]).backward()
    assert type(x.grad) is Tensor
    np.testing.assert_array_equal(host(x.grad)[:, 0], np.arange(5000) % 10 < 5)


# --- optimizers -----------------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "Adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.01}),
    "SparseAdam": ("SparseAdam", {"lr": 0.1}),
    "SparseAdam up": ("SparseAdam", {"lr": 0.1, "betas": (0.5, 0.9), "maximize": True}),
}


def trained(module: Any, tensor: Any, optimizer: Any, table: Any) -> Any:
    """The weights after steps of one or two backward passes, a step without any among them."""
    rng = np.random.default_rng(3)
    for k in range(5):
        optimizer.zero_grad()
        for _ in range(k % 3):
            rows, by = rng.integers(0, 7, (3, 2)), rng.standard_normal((3, 2, 4))
            (table(tensor(rows)) * tensor(by)).sum().backward()
        optimizer.step()
    return table.weight.detach().numpy()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_like_torch(name: str) -> None:
    torch: Any = pytest.importorskip("torch")
    kind, options = OPTIMIZERS[name]
    start = np.random.default_rng(0).standard_normal((7, 4))
    ours = nn.Embedding.from_pretrained(Tensor(start), freeze=False, sparse=True)
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(start), freeze=False, sparse=True)
    optimizer = getattr(optim, kind)(ours.parameters(), **options)
    found = trained(nn, Tensor, optimizer, ours)
    other = getattr(torch.optim, kind)(theirs.parameters(), **options)
    np.testing.assert_allclose(
        found, trained(torch.nn, torch.tensor, other, theirs), rtol=1e-10, atol=1e-14
    )
    again = getattr(optim, kind)(ours.parameters(), **options)
    again.load_state_dict(optimizer.state_dict())
    for key, value in optimizer.state_dict()["state"].get(0, {}).items():
        np.testing.assert_array_equal(host(again.state_dict()["state"][0][key]), host(value))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.SGD, {"momentum": 0.9}),
        (optim.SGD, {"weight_decay": 0.1}),
        (optim.Adagrad, {"weight_decay": 0.1}),
        (optim.Adam, {}),
        (optim.Lion, {}),
        (optim.Adafactor, {}),
    ],
)
def test_other_optimizers_keep_their_meaning(kind: Any, options: dict[str, Any]) -> None:
    start = np.random.default_rng(0).standard_normal((7, 4))
    ends = []
    for sparse in (False, True):
        table = nn.Embedding.from_pretrained(Tensor(start.copy()), freeze=False, sparse=sparse)
        ends.append(trained(nn, Tensor, kind(table.parameters(), lr=0.1, **options), table))
    np.testing.assert_array_equal(ends[0], ends[1])


def test_a_row_that_was_not_looked_up_is_not_touched() -> None:
    """Not even one that NaN would come from."""
    for kind in (optim.SGD, optim.Adagrad, optim.SparseAdam):
        x = Tensor(np.full((5, 2), np.nan), requires_grad=True)
        x.detach()[1:3] = 1.0
        optimizer = kind([x], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            F.embedding(Tensor([1, 2]), x, sparse=True).square().sum().backward()
            optimizer.step()
        assert np.isnan(host(x.detach())).all(axis=1).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("clip", ["norm", "infinity", "one", "value", "scaler", "overflow"])
def test_clipping_and_scaling(clip: str) -> None:
    ends: list[tuple[Any, Any, Any]] = []
    for sparse in (False, True):
        x = Tensor(np.random.default_rng(0).standard_normal((7, 4)), requires_grad=True)
        bias = tg.ones(4, dtype="float64", requires_grad=True)
        optimizer = optim.SGD([x, bias], lr=0.1)
        scaler = tg.amp.GradScaler(init_scale=2.0**10)
        loss = (F.embedding(Tensor([1, 5, 1, 1]), x, sparse=sparse) * bias).square().sum()
        if clip == "overflow":
            loss = loss * tg.inf
        if clip in ("scaler", "overflow"):
            scaler.scale(loss).backward()
            assert scaler.step(optimizer) is (clip == "scaler")
            scaler.update()
            ends.append((host(x.detach()), host(x.grad), scaler.get_scale()))
            continue
        loss.backward()
        found: Any = 0.0
        if clip == "value":
            optim.clip_grad_value_([x, bias], 0.1)
        else:
            kind = {"norm": 2.0, "infinity": float("inf"), "one": 1.0}[clip]
            found = optim.clip_grad_norm_([x, bias], 0.5, kind).item()
        assert isinstance(x.grad, SparseGradient) is sparse
        optimizer.step()
        ends.append((host(x.detach()), host(x.grad), found))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_what_sparse_adam_takes() -> None:
    with pytest.raises(ValueError, match="must have two axes"):
        optim.SparseAdam([tg.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match="betas must lie"):
        optim.SparseAdam([tg.ones((3, 2), requires_grad=True)], betas=(1.0, 0.9))
    x = tg.zeros((3, 2), requires_grad=True)
    x.grad = Tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    optimizer = optim.SparseAdam([x], lr=0.5)
    optimizer.step()
    np.testing.assert_allclose(host(x.detach()), np.array([[0, 0], [-0.5, 0], [0, 0]]), rtol=1e-5)


# --- programs -------------------------------------------------------------------------------------


@EVERY_EXECUTOR
@pytest.mark.parametrize("shape", [(7, 4), (3000, 64)])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "SparseAdam", "Adam"])
def test_compiled_steps(name: str, shape: tuple[int, int], executor: str) -> None:
    """The gradient is kept as rows where it is in eager mode; both may alternate."""
    ends = []
    for compiled in (False, True):
        start, sparse = np.random.default_rng(0).standard_normal(shape), name == "SparseAdam"
        table = nn.Embedding.from_pretrained(
            Tensor(start), freeze=False, sparse=sparse or shape[0] < 10
        )
        optimizer = getattr(optim, name)(table.parameters(), lr=0.1)

        def step(rows: Tensor, table: Any = table, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = table(rows).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = tg.compile(step, executor=executor) if compiled else step
        rng = np.random.default_rng(1)
        for k in range(11):
            (step if k in (3, 6) else run)(Tensor(rng.integers(-7, 7, (3, 2))))
        gradient: Any = table.weight.grad
        assert not compiled or isinstance(gradient, LazyGradient) is (name != "Adam")
        ends.append((host(table.weight.detach()), host(gradient)))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_gradients_of_a_program_that_somebody_keeps_stay_what_they_are() -> None:
    """The rows of the last replay are overwritten by the next one unless they are referred to."""
    x = Tensor(np.ones((9, 3)), requires_grad=True)
    optimizer = optim.SGD([x], lr=0.0)

    @tg.compile
    def step(rows: Tensor, by: Tensor) -> None:
        optimizer.zero_grad()
        (F.embedding(rows, x, sparse=True) * by).sum().backward()
        optimizer.step()

    kept: list[tuple[Any, Any]] = []
    rng = np.random.default_rng(0)
    for k in range(14):
        rows, by = rng.integers(0, 9, 5), rng.standard_normal((5, 3))
        step(Tensor(rows), Tensor(by))
        dense = np.zeros((9, 3))
        np.add.at(dense, rows, by)
        gradient = rows_of(x)
        if k % 3 == 0:
            kept.append((gradient, dense))
        if k % 3 == 1:
            kept.append((gradient.values, dense[np.unique(rows)]))
        if k % 3 == 2:
            kept.append((copy.deepcopy(gradient), dense))
        if k % 4 == 0:
            np.testing.assert_allclose(host(gradient), dense, rtol=1e-12)
        del gradient
    for found, right in kept:
        np.testing.assert_allclose(host(found), right, rtol=1e-12)


def test_a_program_may_read_its_gradient_as_a_whole() -> None:
    """Clipped, added to, handed out, multiplied: the zeros are made where that is asked for."""
    for way in range(5):
        ends: list[Any] = []
        for compiled in (False, True):
            start = np.random.default_rng(0).standard_normal((7, 3))
            x = Tensor(start, requires_grad=True)
            optimizer = optim.SGD([x], lr=0.1)

            def step(rows: Tensor, x: Any = x, optimizer: Any = optimizer, way: int = way) -> Any:
                optimizer.zero_grad()
                loss = F.embedding(rows, x, sparse=True).square().sum()
                loss.backward()
                if way == 0:
                    optim.clip_grad_norm_([x], 0.5)
                if way == 1:
                    F.embedding(rows, x, sparse=True).sum().backward()
                if way == 2:
                    x.sum().backward()
                if way == 3:
                    x.grad *= 2.0
                optimizer.step()
                return x.grad if way == 4 else loss.detach()

            run: Any = tg.compile(step) if compiled else step
            rng = np.random.default_rng(1)
            found = [np.array(host(run(Tensor(rng.integers(0, 7, 4))))) for _ in range(6)]
            ends.append([*found, host(x.detach()), host(x.grad)])
        for a, b in zip(*ends, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_a_compiled_update_of_rows_from_before() -> None:
    """The backward pass is outside; the rows are others in every call."""
    ends = []
    for compiled in (False, True):
        x = Tensor(np.ones((6, 2)), requires_grad=True)
        optimizer = optim.SGD([x], lr=0.1)

        def update(optimizer: Any = optimizer) -> None:
            optimizer.step()

        run = tg.compile(update) if compiled else update
        for k in range(5):
            optimizer.zero_grad()
            F.embedding(Tensor([k, 0]), x, sparse=True).square().sum().backward()
            run()
        ends.append(host(x.detach()))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12, atol=1e-14)


def test_sparse_adam_in_a_program_takes_rows_and_no_dense_gradient() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = optim.SparseAdam(table.parameters())

    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        loss = table.weight.square().sum() + table(rows).sum()
        loss.backward()
        optimizer.step()

    with pytest.raises(CompileError, match=r"SparseAdam\.step\(\), which looks for rows"):
        tg.compile(step)(Tensor([1, 2]))
