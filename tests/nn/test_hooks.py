"""Hooks of modules, frozen and shared weights, weights to and from PyTorch, counts of work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import DataFileError
from tensorgrad.errors import ShapeError
from tensorgrad.tensor import Tensor

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def net() -> Any:
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


# --- hooks ----------------------------------------------------------------------------------------


def test_forward_hooks() -> None:
    """In the order of registration; what they return takes the place; removing ends it."""
    model = net()
    seen: list[Any] = []
    plain = model(Tensor(X)).detach().numpy()
    before = model[0].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    model[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].numpy().copy()))
    after = model.register_forward_hook(lambda m, args, y: y + 1)
    model.register_forward_hook(lambda m, args, y: seen.append(y.shape))
    changed = model(Tensor(X)).detach().numpy()
    np.testing.assert_array_equal(seen[0], X * 2)
    assert seen[1] == (6, 2)
    before.remove()
    np.testing.assert_allclose(model(Tensor(X)).detach().numpy(), plain + 1, rtol=1e-6)
    assert not np.allclose(changed, plain + 1)
    with after:
        pass
    after.remove()
    np.testing.assert_array_equal(model(Tensor(X)).detach().numpy(), plain)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("needs", [False, True])
def test_backward_hooks_as_pytorch(needs: bool) -> None:
    """The gradients by inputs and outputs of a layer, and a replaced one."""
    torch = pytest.importorskip("torch")
    model = net()
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in model.state_dict().items()})
    found: list[list[Any]] = [[], []]
    for own, module in ((0, model), (1, theirs)):
        for k in (0, 2):
            module[k].register_full_backward_hook(
                lambda m, gi, go, own=own: found[own].append(
                    [None if g is None else np.asarray(g.detach().numpy()) for g in (*gi, *go)]
                )
            )
        module[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
    x, y = Tensor(X, requires_grad=needs), torch.tensor(X, requires_grad=needs)
    (model(x) ** 2).sum().backward()
    (theirs(y) ** 2).sum().backward()
    for a, b in zip(found[0], found[1], strict=True):
        for g, h in zip(a, b, strict=True):
            assert (g is None) == (h is None)
            if g is not None:
                np.testing.assert_allclose(g, h, rtol=1e-4, atol=1e-5)
    for p, q in zip(model.parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_compiled_function_notices_a_new_hook() -> None:
    """What a hook computes is repeated; one that is added or removed is noticed."""
    model = net()
    call = tg.compile(lambda x: model(x))
    x = Tensor(X)
    plain = call(x).numpy().copy()
    handle = model.register_forward_hook(lambda m, args, y: y * 2)
    for _ in range(3):
        np.testing.assert_allclose(call(x).detach().numpy(), 2 * plain, rtol=1e-6)
    handle.remove()
    np.testing.assert_allclose(call(x).detach().numpy(), plain, rtol=1e-6)


def test_copies_have_the_hooks_but_handles_end_those_of_the_original() -> None:
    """As in PyTorch."""
    model = net().requires_grad_(False)
    handle = model.register_forward_hook(lambda m, args, y: y * 0)
    twin = copy.deepcopy(model)
    handle.remove()
    assert not (model(Tensor(X)).numpy() == 0).all()
    assert (twin(Tensor(X)).numpy() == 0).all()


# --- freezing and sharing -------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, True])
def test_frozen_layers_stay(compile: bool) -> None:
    """No gradient, no step; thawed, they train again."""
    model = net()
    model[0].requires_grad_(False)
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = tg.compile(step) if compile else step
    first = model[0].weight.detach().numpy().copy()
    last = model[2].weight.detach().numpy().copy()
    for _ in range(4):
        run(Tensor(X))
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), first)
    assert model[0].weight.grad is None
    assert not np.allclose(model[2].weight.detach().numpy(), last)
    assert model.summary().trainable == 12
    model[0].requires_grad_()
    optimizer.add_param_group({"params": list(model[0].parameters())})
    run(Tensor(X))
    assert not np.allclose(model[0].weight.detach().numpy(), first)


@pytest.mark.parametrize("compile", [False, True])
def test_shared_weights_get_the_sum_of_both_gradients(compile: bool) -> None:
    """Tied layers are one parameter: in the optimizer, the state and the file."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            self.encode = nn.Linear(4, 4, bias=False)
            self.decode = nn.Linear(4, 4, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.decode(self.encode(x).tanh())

    tg.manual_seed(1)
    model = Tied()
    assert len(list(model.parameters())) == 1
    assert set(model.state_dict()) == {"encode.weight", "decode.weight"}
    w = Tensor(model.encode.weight.detach().numpy(), requires_grad=True)
    ((((Tensor(X) @ w.mT).tanh() @ w.mT) ** 2).sum()).backward()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    before = model.encode.weight.detach().numpy().copy()
    (tg.compile(step) if compile else step)(Tensor(X))
    assert w.grad is not None
    np.testing.assert_allclose(
        model.encode.weight.detach().numpy(), before - 0.01 * w.grad.numpy(), rtol=1e-4, atol=1e-6
    )
    assert model.decode.weight is model.encode.weight


# --- PyTorch --------------------------------------------------------------------------------------


def both() -> tuple[nn.Module, Any]:
    """The same layers in both libraries, with other weights."""
    torch = pytest.importorskip("torch")

    def made(lib: Any) -> Any:
        return lib.Sequential(
            lib.Linear(4, 6), lib.LayerNorm(6), lib.ReLU(), lib.BatchNorm1d(6),
            lib.Linear(6, 8, bias=False), lib.RMSNorm(8, eps=1e-6), lib.GroupNorm(2, 8),
            lib.Linear(8, 3),
        )  # fmt: skip

    return made(nn), made(torch.nn)


def test_from_pytorch(tmp_path: Path) -> None:
    """A state dict in safetensors gives the same outputs, wrappers' names or not."""
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    ours, theirs = both()
    theirs(torch.randn(20, 4))  # statistics
    for prefix in ("", "module.", "_orig_mod.module."):
        state = {prefix + name: value for name, value in theirs.state_dict().items()}
        files.save_file(state, tmp_path / "theirs.safetensors")
        nn.load_safetensors(ours, tmp_path / "theirs.safetensors") if prefix.count(".") < 2 else (
            nn.load_safetensors(
                ours, tmp_path / "theirs.safetensors",
                rename=lambda name: name.removeprefix("module."),
            )
        )  # fmt: skip
        found = ours.eval()(Tensor(X)).detach().numpy()
        expected = theirs.eval()(torch.tensor(X)).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_to_pytorch(tmp_path: Path) -> None:
    """The other way, bit by bit, in bfloat16 too."""
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    ours, theirs = both()
    nn.save_safetensors(ours, tmp_path / "ours.safetensors")
    theirs.load_state_dict(files.load_file(tmp_path / "ours.safetensors"))
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours.state_dict()[name].numpy())
    small: Any = nn.Linear(3, 2).to("bfloat16")
    nn.save_safetensors(small, tmp_path / "small.safetensors")
    loaded = files.load_file(tmp_path / "small.safetensors")
    assert loaded["weight"].dtype == torch.bfloat16
    np.testing.assert_array_equal(
        loaded["weight"].float().numpy(), small.weight.detach().float().numpy()
    )


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    """Nothing is loaded; the file or the names are named."""
    model = net()
    path = tmp_path / "x.safetensors"
    nn.save_safetensors(model, path)
    before = model[0].weight.detach().numpy().copy()
    with pytest.raises(ShapeError, match=r"0\.weight"):
        nn.load_safetensors(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), path)
    with pytest.raises(ValueError, match=r"missing: 1\.weight, 1\.bias; unexpected: 2\."):
        nn.load_safetensors(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)), path)
    renamed: Any = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    nn.load_safetensors(renamed, path, rename={"2.weight": "1.weight", "2.bias": "1.bias"})
    np.testing.assert_array_equal(
        renamed[1].weight.detach().numpy(), model[2].weight.detach().numpy()
    )
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataFileError, match="torn, or not a safetensors file"):
        nn.load_safetensors(model, path)
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), before)


# --- counts ---------------------------------------------------------------------------------------


def test_operations_and_kept_bytes() -> None:
    """2 m n k for a product, one for each element otherwise; what the tape really keeps."""
    model = net()
    found = model.summary((6, 4))
    assert {row.name: row.flops for row in found.rows} == {
        "": 0, "0": 2 * 6 * 4 * 5 + 30, "1": 30, "2": 2 * 6 * 5 * 2 + 12,
    }  # fmt: skip
    assert found.flops == 270 + 30 + 132
    assert found.saved_bytes == 4 * (6 * 4 + 6 * 5)  # the input, and tanh's output
    assert "432 FLOPs" in str(found)
    assert model.summary().flops is None


def test_what_moves_numbers_is_no_operation() -> None:
    """An embedding takes rows, and a layer that shuffles, cuts and joins computes nothing."""

    class Shuffle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = tg.gather(x, tg.tensor([[1, 0, 2]]), axis=1)
            y = tg.where(tg.tensor([True, False, True]), y, 0.0).T
            return tg.concat([tg.stack([tg.triu(y), tg.pad(y, 0)])[0], y.float()])

    assert Shuffle().summary((1, 3)).flops == 0
    assert nn.Embedding(5, 4).summary((6,), dtype="int64").flops == 0
