"""Changes of the engine's own objects and classes by ways that tell nobody: ``vars``, patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import CompileError
from tensorgrad.nn import functional
from tensorgrad.ops import random

Patch = pytest.MonkeyPatch
Make = Callable[[], tuple[Callable[[Tensor], Any], Any]]


def ones(*shape: int) -> nn.Parameter:
    return nn.Parameter(tg.ones(shape))


class Own(nn.Module):
    """Adds its parameters and its buffers to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.w = ones(3)
        self.later = None
        self.register_buffer("a", tg.ones(3))
        self.register_buffer("b", tg.ones(3) * 2)

    def forward(self, x: Any) -> Any:
        for t in [*self.parameters(), *self.buffers()]:
            x = x + t
        return x


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), *layers, nn.Tanh())


def turn_round(m: Any) -> None:
    attributes = vars(m)
    first = next(n for n, x in attributes.items() if isinstance(x, nn.Module))
    attributes[first] = attributes.pop(first)


def switch_off(m: nn.Module) -> None:
    for part in m.modules():
        vars(part).update(training=False)


def hooked() -> nn.Module:
    m = nn.Linear(3, 3)
    m.register_forward_hook(lambda module, given, out: out * 2)
    return m


OF_MODULES: list[tuple[str, Callable[[], nn.Module], Callable[[Any], Any]]] = [
    ("p", lambda: nn.Dropout(0.5), lambda m: vars(m).update(p=0.0)),
    ("training", lambda: chain(nn.Dropout(0.5)), switch_off),
    ("forward", chain, lambda m: vars(m[1]).update(forward=lambda x: x * 3)),
    ("eps", lambda: nn.LayerNorm(3), lambda m: vars(m).update(eps=10.0)),
    ("slope", lambda: nn.LeakyReLU(0.1), lambda m: vars(m).update(negative_slope=0.7)),
    ("hooks", hooked, lambda m: vars(m).update(_hooks=None)),
    ("a parameter", Own, lambda m: vars(m).update(v=ones(3))),
    ("a parameter in place of None", Own, lambda m: vars(m).update(later=ones(3))),
    ("a parameter replaced", Own, lambda m: vars(m).update(w=nn.Parameter(tg.ones(3) * 7))),
    ("a parameter gone", Own, lambda m: vars(m).pop("w")),
    ("a part", chain, lambda m: vars(m).update({"7": nn.Linear(3, 2)})),
    ("the order of parts", chain, turn_round),
    ("persistent buffers", Own, lambda m: m._persistent.pop("a")),
]


def agree(
    make: Make, change: Callable[[Any], Any], executor: str, back: Callable[[], Any] | None = None
) -> None:
    """A function and its compiled twin give the same before and after the change."""
    x, found = Tensor([1.0, -2.0, 3.0]), []
    for wrap in (lambda f: f, lambda f: tg.compile(f, executor=executor)):
        tg.manual_seed(0)
        step, of = make()
        call, seen = wrap(step), []
        try:
            for k in range(17):
                if k == 10:
                    change(of)
                try:
                    seen.append(np.asarray(host(call(x))).copy())
                except CompileError:
                    assert k >= 10
                    break
        finally:
            if back is not None:
                back()
        assert not getattr(call, "dropped", "")
        found.append(seen)
    for right, came in zip(*found, strict=False):
        assert right.shape == came.shape
        np.testing.assert_allclose(came, right, rtol=1e-5, atol=1e-6)


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    ("make", "change"), [c[1:] for c in OF_MODULES], ids=[c[0] for c in OF_MODULES]
)
def test_attributes_that_are_put_into_vars(
    make: Callable[[], nn.Module], change: Callable[[Any], Any], executor: str
) -> None:
    def made() -> tuple[Callable[[Tensor], Any], Any]:
        module = make()
        return lambda x: module(x), module

    agree(made, change, executor)


@EVERY_EXECUTOR
def test_the_flag_of_a_buffer(executor: str) -> None:
    def made() -> tuple[Callable[[Tensor], Any], Any]:
        m = nn.Module()
        m.register_buffer("q", tg.ones(3))
        return lambda x: x * len(m.state_dict()), m

    agree(made, lambda m: m._persistent.update(q=False), executor)


w = Tensor([1.0, 2.0, 3.0], requires_grad=True)
layer = nn.Linear(3, 3)


def gradient(x: Tensor) -> Tensor:
    w.grad = None
    (w * x).sum().backward()
    return x * 1 if w.grad is None else w.grad * 1


def summed(x: Tensor) -> Tensor:
    total = x.sum() * 0
    for p in layer.parameters():
        total = total + p.sum()
    return total


def marked(x: Tensor) -> Tensor:
    return x * 2 if hasattr(w, "marked") else x * 3


def dropping() -> tuple[Callable[[Tensor], Any], Any]:
    m = nn.Sequential(nn.Dropout(0.5))
    return lambda x: m(x), m


def stepped() -> tuple[Callable[[Tensor], Any], Any]:
    p = nn.Parameter(tg.ones(3))
    o = optim.SGD([p], lr=0.1)

    def step(x: Tensor) -> Tensor:
        o.zero_grad()
        (p * x).sum().backward()
        o.step()
        return p * 1

    return step, o


def plain(step: Callable[[Tensor], Any]) -> Make:
    return lambda: (step, None)


PATCHES: list[tuple[str, Make, Any, str, Any]] = [
    ("a method", plain(lambda x: x.relu()), Tensor, "relu", lambda t: t * 7),
    ("an operator", plain(lambda x: x + 1), Tensor, "__add__", lambda t, other: t * 7),
    ("backward", plain(gradient), Tensor, "backward", lambda t: None),
    ("something new", plain(marked), Tensor, "marked", 1),
    ("parameters", plain(summed), nn.Module, "parameters", lambda m: iter([m.bias])),
    ("training of all", dropping, nn.Module, "training", False),
    ("training of some", dropping, nn.Dropout, "training", False),
    ("the step of optimizers", stepped, optim.SGD, "step", lambda o: None),
    ("defaults", plain(functional.leaky_relu), functional.leaky_relu, "__defaults__", (0.5,)),
    ("the generator", dropping, random, "default_generator", None),
]


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    ("make", "holder", "name", "value"), [p[1:] for p in PATCHES], ids=[p[0] for p in PATCHES]
)
def test_what_is_patched(
    make: Make, holder: Any, name: str, value: Any, executor: str, monkeypatch: Patch
) -> None:
    def change(of: Any) -> None:
        new = tg.Generator(7) if name == "default_generator" else value
        monkeypatch.setattr(holder, name, new, raising=False)

    agree(make, change, executor, monkeypatch.undo)


@EVERY_EXECUTOR
def test_nothing_is_captured_anew_without_a_change(executor: str) -> None:
    step, _ = stepped()
    call = tg.compile(step, executor=executor)
    m = chain(nn.Dropout(0.5))
    whole = tg.compile(lambda x: m(x), executor=executor)
    for _ in range(40):
        call(Tensor([1.0, -2.0, 3.0]))
        whole(Tensor([1.0, -2.0, 3.0]))
    assert call.captures == whole.captures == 1
