"""Module: its parts in order, moving, saving and loading, descriptions, paths in errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, dtypes, nn, optim
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.random import Generator


class Block(nn.Module):
    mean: Tensor

    def __init__(self, n: int = 3) -> None:
        self.fc1 = nn.Linear(n, 4)
        self.scale = nn.Parameter(np.ones(4))
        self.register_buffer("mean", Tensor(np.zeros(4)))
        self.register_buffer("scratch", Tensor([0, 1]), persistent=False)
        self.fc2 = nn.Linear(4, n)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1(x) * self.scale + self.mean)
        return out


class Net(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(3, 3)
        self.net = nn.Sequential(nn.ReLU(), nn.Linear(3, 3), Block())
        self.last = nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.net(self.first(x)))
        return out


NAMES = [
    "first.weight", "first.bias", "net.1.weight", "net.1.bias", "net.2.scale", "net.2.fc1.weight",
    "net.2.fc1.bias", "net.2.fc2.weight", "net.2.fc2.bias", "last.weight",
]  # fmt: skip


def test_parameters_in_order_of_definition() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert [n for n, _ in net.named_parameters(prefix="m", recurse=False)] == []
    assert [n for n, _ in net.net[2].named_parameters(prefix="m", recurse=False)] == ["m.scale"]
    assert [n for n, _ in net.named_buffers()] == ["net.2.mean", "net.2.scratch"]
    assert len(list(net.buffers())) == 2


def test_modules() -> None:
    net = Net()
    names = ["", "first", "net", "net.0", "net.1", "net.2", "net.2.fc1", "net.2.fc2", "last"]
    assert [n for n, _ in net.named_modules()] == names
    assert [n for n, _ in net.named_children()] == ["first", "net", "last"]
    assert list(net.children()) == [net.first, net.net, net.last]
    assert len(list(net.modules())) == 9
    block = net.net[2]
    assert isinstance(block, Block)
    assert net.get_submodule("net.2.fc1") is block.fc1
    assert net.get_submodule("") is net
    with pytest.raises(AttributeError, match="no '7' in Sequential, whose modules are: 0, 1, 2"):
        net.get_submodule("net.7.fc1")


def test_what_is_shared_appears_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(2, 2)
            self.b = nn.Linear(2, 2)
            self.b.weight = self.a.weight
            self.again = self.a

    tied = Tied()
    assert [n for n, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    every = [n for n, _ in tied.named_parameters(remove_duplicate=False)]
    assert every == ["a.weight", "a.bias", "b.weight", "b.bias", "again.weight", "again.bias"]
    assert list(tied.state_dict()) == every
    assert [n for n, _ in tied.named_modules()] == ["", "a", "b"]
    assert len(list(tied.children())) == 2
    tied.load_state_dict(tied.state_dict())
    assert tied.summary().parameters == 4 + 2 + 2


def test_a_parameter_can_be_replaced_and_removed() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(TypeError, match=r"Linear.weight is a parameter.*nn.Parameter\(x\)"):
        layer.weight = Tensor(np.ones((3, 2)))  # type: ignore[assignment]
    layer.weight = nn.Parameter(np.ones((3, 2)))
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"]
    layer.bias = None
    assert [n for n, _ in layer.named_parameters()] == ["weight"]
    assert layer(Tensor(np.ones((1, 2)))).tolist() == [[2, 2, 2]]


def test_parameter() -> None:
    own = np.zeros(2)
    p = nn.Parameter(own)
    assert p.requires_grad
    assert isinstance(p, Tensor)
    assert p.data is not own
    shared = Tensor([1.0])
    assert nn.Parameter(shared).data is shared.data
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    assert repr(nn.Parameter([1.0])) == "Parameter([1.], requires_grad=True)"
    with pytest.raises(DtypeError):
        nn.Parameter([1, 2])
    assert not isinstance(p * 2.0, nn.Parameter)


def test_registering() -> None:
    module = nn.Module()
    module.register_buffer("b", None)
    module.register_parameter("p", None)
    module.register_parameter("q", nn.Parameter([1.0]))
    module.add_module("m", nn.Identity())
    assert list(module.state_dict()) == ["q"]
    module.b = Tensor([1.0])
    assert list(module.state_dict()) == ["q", "b"]
    with pytest.raises(ValueError, match="already has an attribute 'm'"):
        module.register_buffer("m", Tensor([1.0]))
    with pytest.raises(ValueError, match=r"without a dot, got 'a\.b'"):
        module.add_module("a.b", nn.Identity())
    wrong: Any = 3
    with pytest.raises(TypeError, match="must be a Tensor"):
        module.register_buffer("c", wrong)
    with pytest.raises(TypeError, match=r"must be an nn\.Parameter"):
        module.register_parameter("c", Tensor([1.0]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Module"):
        module.add_module("c", wrong)
    with pytest.raises(NotImplementedError, match=r"Module does not define forward\(\)"):
        module(1)


def test_modes_and_changes_to_all() -> None:
    net = Net()
    assert net.training
    assert net.net[2].training
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    seen: list[str] = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net"
    assert seen[0] == "Linear"
    assert len(seen) == 9
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(Tensor(np.ones((2, 3)))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.data.any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_conversion_keeps_the_parameters() -> None:
    net = Net()
    before = list(net.parameters())
    net(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert net.double() is net
    after = list(net.parameters())
    assert [id(p) for p in before] == [id(p) for p in after]
    assert all(p.dtype == dtypes.float64 == p.grad.dtype for p in after if p.grad is not None)
    block = net.net[2]
    assert isinstance(block, Block)
    assert dict(block.named_buffers())["mean"].dtype == dtypes.float64
    assert dict(block.named_buffers())["scratch"].dtype == dtypes.int64
    net.zero_grad()
    net(Tensor(np.ones((2, 3)))).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtypes.float64 for p in after)
    assert {p.dtype for p in net.half().parameters()} == {dtypes.float16}
    assert {p.dtype for p in net.float().parameters()} == {dtypes.float32}
    assert {p.dtype for p in net.to("bfloat16").parameters()} == {dtypes.bfloat16}
    assert {p.device for p in net.to("cpu").cpu().parameters()} == {"cpu"}
    with pytest.raises(DtypeError, match="only be converted to a floating dtype"):
        net.to(dtypes.int64)


def test_an_optimizer_goes_on_after_a_conversion() -> None:
    net = nn.Linear(2, 1)
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    for dtype in ("float32", "float64"):
        net.to(dtype)
        net(Tensor(np.ones((1, 2)), dtype=dtype)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert net.weight.dtype == optimizer.state[net.weight]["exp_avg"].dtype == dtypes.float64
    assert optimizer.state[net.weight]["step"].item() == 2


# --- saving and loading ---------------------------------------------------------------------------


def test_state_dict_round_trip() -> None:
    one, two = Net(), Net()
    state = one.state_dict()
    assert list(state) == [*NAMES[:5], "net.2.mean", *NAMES[5:]]
    assert not any(t.requires_grad for t in state.values())
    assert state["last.weight"].data is one.last.weight.data
    x = Tensor(np.ones((2, 3), np.float32))
    assert one(x).tolist() != two(x).tolist()
    held = list(two.parameters())
    assert two.load_state_dict(state) == ([], [])
    assert one(x).tolist() == two(x).tolist()
    assert [id(p) for p in two.parameters()] == [id(p) for p in held]
    assert two.first.weight.data is not one.first.weight.data
    two.load_state_dict({k: v.numpy().astype(np.float64) for k, v in state.items()})
    assert two.first.weight.dtype == dtypes.float32


def test_a_state_that_does_not_fit_is_refused_in_full() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    state: dict[str, Any] = {k: np.zeros(v.shape) for k, v in net.state_dict().items()}
    del state["1.bias"]
    state["extra"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"missing: 1\.bias; unexpected: extra\. strict=False"):
        net.load_state_dict(state)
    state["0.weight"] = np.zeros((2, 3))
    state["1.weight"] = np.zeros((1, 4))
    with pytest.raises(
        ShapeError,
        match=r"missing: 1\.bias; unexpected: extra; 0\.weight: the model has shape \(3, 2\), the "
        r"state \(2, 3\); 1\.weight: the model has shape \(1, 3\), the state \(1, 4\)",
    ):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    with pytest.raises(ShapeError):
        net.load_state_dict(state, strict=False)
    del state["0.weight"], state["1.weight"]
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.weight", "1.weight", "1.bias"]
    assert result.unexpected_keys == ["extra"]
    assert net.state_dict()["0.bias"].tolist() == [0, 0, 0]


def test_deep_copies_are_independent() -> None:
    net = nn.Linear(2, 2)
    twin = copy.deepcopy(net)
    x = Tensor(np.ones((1, 2), np.float32))
    (net(x) + twin(x)).sum().backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert p is not q
        assert isinstance(q, nn.Parameter)
        assert not np.shares_memory(p.data, q.data)
        assert p.grad is not None
        assert q.grad is not None
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


class Leaning(nn.Module):
    """Holds the module that holds it, at any distance."""

    def __init__(self) -> None:
        self.inner = nn.Linear(2, 2)
        self.above: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("distance", [0, 1, 3, 30])
def test_a_module_that_holds_one_that_holds_it(distance: int) -> None:
    """Everything that walks through a model ends, and comes past the others as ever."""
    leaning = Leaning()
    net: nn.Module = leaning
    for _ in range(distance):
        net = nn.Sequential(net, nn.Dropout(0.1))
    leaning.above = net
    path = "0." * distance
    assert list(net.state_dict()) == [f"{path}inner.weight", f"{path}inner.bias"]
    assert [name for name, _ in net.named_parameters(remove_duplicate=False)] == [*net.state_dict()]
    assert len(list(net.named_modules(remove_duplicate=False))) == 2 + 2 * distance
    assert len(list(leaning.named_modules())) == 2 + 2 * distance  # the rest lies inside it too
    assert repr(net).count("(above): " + type(net).__name__ + "(...)") == 1
    assert repr(net).count("Linear(in_features=2, out_features=2, bias=True)") == 1
    called: list[nn.Module] = []
    net.apply(called.append)
    assert called[-1] is net
    assert len({id(m) for m in called}) == len(called) == 2 + 2 * distance
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        inside = [m for m in twin.modules() if isinstance(m, Leaning)]
        assert len(inside) == 1
        twin.load_state_dict(net.state_dict())
        assert inside[0].above is twin
    net.double().eval()
    assert leaning.inner.weight.dtype == np.float64
    assert not leaning.training
    net.zero_grad()
    x = np.ones((1, 2))
    np.testing.assert_array_equal(net(Tensor(x)).detach().numpy(), leaning(Tensor(x)).detach())


def test_a_model_as_deep_as_one_likes() -> None:
    """Deeper than Python's calls may be nested; only ``forward`` is made of calls."""
    net: nn.Module = nn.Linear(1, 2)
    for i in range(1500):
        net = nn.Sequential({f"m{i}": net})
    (name, *_) = net.state_dict()
    assert name.count(".") == 1500
    assert len(repr(net).splitlines()) == 1 + 2 * 1500
    net.double().eval().requires_grad_(False).zero_grad()
    called: list[nn.Module] = []
    net.apply(called.append)
    assert isinstance(called[0], nn.Linear)
    assert called[0].weight.dtype == np.float64
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        twin.load_state_dict(net.state_dict())
        assert repr(twin) == repr(net)
        assert {id(m) for m in twin.modules()}.isdisjoint({id(m) for m in net.modules()})
        assert not any("_far" in vars(m) for m in twin.modules())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_what_is_shared_is_shared_in_copies(way: Callable[[nn.Module], Any]) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    twin = way(nn.Sequential(first, second, first))
    assert twin[0] is twin[2]
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight is not first.weight
    assert len(list(twin.parameters())) == 3
    twin.double()
    assert twin[0].weight is twin[1].weight
    assert twin[1].weight.dtype == np.float64


def test_apply_comes_to_a_shared_module_once() -> None:
    shared = nn.Linear(1, 1)
    net = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
    called: list[nn.Module] = []
    net.apply(called.append)
    assert called == [shared, net[0], net[1], net]


@pytest.mark.parametrize("target", ["float64", "float16", "bfloat16"])
def test_a_conversion_keeps_what_is_frozen_and_what_hangs_on_it(target: str) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    net[0].requires_grad_(False)
    seen: list[str] = []
    last = net[2]
    assert isinstance(last, nn.Linear)
    remove = last.weight.register_hook(lambda g: seen.append(str(g.dtype)))
    net(Tensor(np.ones((3, 2), np.float32))).sum().backward()
    before = [p.requires_grad for p in net.parameters()]
    assert before == [False] * 2 + [True] * 4
    net.to(dtype=target)
    assert [p.requires_grad for p in net.parameters()] == before
    assert not any(b.requires_grad for b in net.buffers())
    assert [p.grad is not None for p in net.parameters()] == before
    assert {str(p.grad.dtype) for p in net.parameters() if p.grad is not None} == {target}
    net(Tensor(np.ones((3, 2)), dtype=target)).sum().backward()
    remove()
    net(Tensor(np.ones((3, 2)), dtype=target)).sum().backward()
    assert seen == ["float32", target]


# --- descriptions ---------------------------------------------------------------------------------


def test_repr() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.1)))
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        ")"
    )


def test_summary() -> None:
    net = Net()
    net.first.weight.requires_grad = False
    plain = net.summary()
    assert plain.parameters == 12 + 12 + 4 + 16 + 15 + 6
    assert plain.trainable == plain.parameters - 9
    assert "output shape" not in str(plain)
    net.net[0].eval()
    seen = net.summary((5, 3))
    shapes = {row.name: row.output_shape for row in seen.rows}
    assert shapes["net.2.fc1"] == (5, 4)
    assert shapes[""] == (5, 2)
    assert "net.2.fc1  Linear      (5, 4)" in str(seen)
    assert str(seen).splitlines()[-2].endswith(f"{plain.bytes:,} bytes")
    assert (net.training, net.net[0].training) == (True, False)
    assert "forward" not in vars(net.first)
    with pytest.raises(ShapeError):
        net.summary((5, 4))
    assert "forward" not in vars(net.first)

    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, int]:
            return a * b, 1

    assert Two().summary([(2, 1), (3,)]).rows[0].output_shape == (2, 3)


# --- errors ---------------------------------------------------------------------------------------


def test_a_shape_error_names_the_module() -> None:
    net = Net()
    block = net.get_submodule("net.2")
    assert isinstance(block, Block)
    block.fc1 = nn.Linear(7, 4)
    with pytest.raises(ShapeError, match=r"\[in module net\.2\.fc1\]$"):
        net(Tensor(np.zeros((2, 3), np.float32)))
    block = Block()
    block.scale = nn.Parameter(np.ones(5))
    with pytest.raises(ShapeError, match=r"got \(2, 4\) and \(5,\) \[in module 1\]$"):
        nn.Sequential(nn.Identity(), block)(Tensor(np.zeros((2, 3))))
    with pytest.raises(ShapeError) as caught:
        nn.Linear(3, 2)(Tensor(np.zeros((2, 4))))
    assert "in module" not in str(caught.value)


def test_the_path_leads_through_a_module_list() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(3, 2)])

        def forward(self, x: Tensor) -> Any:
            for layer in self.layers:
                x = layer(x)
            return x

    outer = nn.Sequential({"stack": Stack()})
    with pytest.raises(ShapeError, match=r"\[in module stack\.layers\.1\]$"):
        outer(Tensor(np.zeros((1, 2))))


def test_seeded_models_are_equal() -> None:
    one, two = (nn.Linear(3, 4, generator=Generator(5)) for _ in range(2))
    np.testing.assert_array_equal(one.weight.detach().numpy(), two.weight.detach().numpy())
