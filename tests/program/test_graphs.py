"""Random steps, as functions written out in Python: compiled and plain they do the same for ever.

A step computes with its arguments and with parameters, buffers and gradients outside,
differentiates once or twice, and overwrites some of it. Between the calls somebody changes what was
returned, keeps gradients, or puts other numbers or other arrays into the parameters. All of it is
done in two worlds, one of which runs the step as a program, and all that can be seen is compared.
"""

from __future__ import annotations

import itertools
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from program.executors import EVERY_EXECUTOR, EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import CompileError, TensorgradError

CALLS = 7
SIZES = [(4, 3), (4, 3), (70, 65)]  # of the last, results are handed out as they lie


class World:
    """Parameters, buffers and arguments of a step, and what has been kept of earlier calls."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self.dtype = tg.float64 if seed % 4 else tg.float32
        self.size = n, m = SIZES[seed % len(SIZES)]
        self.names: dict[str, Any] = {"tg": tg, "np": np}
        for k, shape in enumerate([(n, m), (m,), (m, m)]):
            self.names[f"p{k}"] = self.tensor(shape, requires_grad=True)
        for k, shape in enumerate([(n, m), ()]):
            self.names[f"b{k}"] = self.tensor(shape)
        self.kept: list[Any] = []

    def tensor(self, shape: tuple[int, ...], requires_grad: bool = False) -> Tensor:
        return Tensor(
            self._draw.uniform(-1, 1, shape), dtype=self.dtype, requires_grad=requires_grad
        )

    def arguments(self, kinds: str) -> list[Tensor]:
        """kinds: for each argument "x", or "l" for a leaf, or "s" for the one before once more."""
        found: list[Tensor] = []
        for kind in kinds:
            if kind == "s" and found:
                found.append(found[-1])
            else:
                found.append(self.tensor(self.size, requires_grad=kind == "l"))
        return found

    @property
    def parameters(self) -> list[Tensor]:
        return [self.names[f"p{k}"] for k in range(3)]

    def seen(self) -> list[Any]:
        """All numbers that somebody can see."""
        state = [t for name, t in self.names.items() if name[0] in "pb" and isinstance(t, Tensor)]
        gradients = [p.grad for p in self.parameters]
        return [*state, *gradients, *self.kept]


# --- steps ----------------------------------------------------------------------------------------


class Writer:
    """Writes a step line by line; a line that eager mode refuses is left out."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.kinds = "".join(self.choose.choices("xxls", k=self.choose.randint(1, 3)))
        world = World(seed)
        n, m = world.size
        self.shapes = [(n, m), (m,), (n, 1), (), (m, m)]
        self.space = world.names
        self.lines: list[str] = []
        self.made = ["p0", "p1", "p2", "b0", "b1"]
        for k, t in enumerate(world.arguments(self.kinds)):
            self.space[f"x{k}"] = t
            self.made.append(f"x{k}")
        self.count = 0
        while len(self.lines) < self.choose.randint(6, 16):
            self.try_line(self.choose.choice(LINES)(self))
        self.results = self.choose.sample(self.made, min(len(self.made), self.choose.randint(1, 4)))
        if self.choose.random() < 0.3:
            self.results.append(f"p{self.choose.randrange(3)}.grad")
        if self.choose.random() < 0.2:
            self.results.append(self.results[0])

    def any(self) -> str:
        """A tensor; the latest ones more often."""
        return self.choose.choice([*self.made, *self.made[-4:], *self.made[-2:]])

    def new(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def try_line(self, line: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(line, self.space)
            except (TensorgradError, ValueError, TypeError, AttributeError, IndexError):
                return
        self.lines.append(line)
        target = line.partition(" = ")[0].rpartition(": ")[2]
        made = self.space.get(target)
        if isinstance(made, Tensor) and target not in self.made:
            if not (np.abs(made.data) < 1e3).all():
                self.lines.append(f"{target} = tg.tanh({target})")
                exec(self.lines[-1], self.space)
            self.made.append(target)

    @property
    def text(self) -> str:
        names = ", ".join(f"x{k}" for k in range(len(self.kinds)))
        body = [*self.lines, f"return [{', '.join(self.results)}]"]
        return f"def step({names}):\n    " + "\n    ".join(body) + "\n"


def _elementwise(w: Writer) -> str:
    f = w.choose.choice(
        ["tg.tanh({a})", "tg.sigmoid({a})", "-{a}", "tg.square({a})", "tg.relu({a})", "{a} * 1.0",
         "{a} * 0.0", "{a} * -0.0", "tg.exp(-tg.square({a}))", "{a} + 0.5", "{a}.clone()",
         "tg.where({a} > 0.1, {a}, 0.0)"]
    )  # fmt: skip
    return f"{w.new()} = " + f.format(a=w.any())


def _binary(w: Writer) -> str:
    f = w.choose.choice(
        ["{a} + {b}", "{a} * {b}", "{a} - {b}", "{a} @ {b}", "{a} / ({b} * {b} + 1.0)"]
    )
    return f"{w.new()} = " + f.format(a=w.any(), b=w.any())


def _again(w: Writer) -> str:
    """The expression of an earlier line once more: a common subexpression, or not quite one."""
    earlier = [line for line in w.lines if line.startswith("t") and " = " in line]
    if not earlier:
        return _binary(w)
    return f"{w.new()} = " + w.choose.choice(earlier).partition(" = ")[2]


def _reduction(w: Writer) -> str:
    name = w.choose.choice(["sum", "mean", "sum", "logsumexp"])
    axis = w.choose.choice(
        ["", "axis=0", "axis=-1", "axis=0, keepdims=True", "axis=-1, keepdims=True"]
    )
    return f"{w.new()} = tg.{name}({w.any()}, {axis})"


def _view(w: Writer) -> str:
    how = w.choose.choice(
        [".T", "[::-1]", "[1:]", "[0]", ".reshape(-1)", "[..., ::2]", ".detach()", "[None]",
         ".T.reshape(-1)", "[1:3]"]
    )  # fmt: skip
    return f"{w.new()} = {w.any()}{how}"


def _call(w: Writer) -> str:
    """What programs leave to calls."""
    f = w.choose.choice(
        ["tg.cumulative_sum({a}, axis=0)", "tg.sort({a}, axis=0)", "tg.stack([{a}, {a}])",
         "tg.concat([{a}, {b}])", "tg.triu({a})", "{a}[[0, 1, 0]]"]
    )  # fmt: skip
    return f"{w.new()} = " + f.format(a=w.any(), b=w.any())


def _made(w: Writer) -> str:
    shape = w.choose.choice(w.shapes)
    how = w.choose.choice(
        ["tg.zeros({s})", "tg.ones({s})", "tg.full({s}, -0.5)", "tg.zeros_like({a})"]
    )
    made = how.format(s=shape, a=w.any())
    return f"{w.new()} = {made}" + w.choose.choice(["", ".requires_grad_()"])


def _in_place(w: Writer) -> str:
    a, b = w.any(), w.any()
    number = w.choose.choice(["0.5", "2.0", "-0.25"])
    change = w.choose.choice(
        [f"{a} += {b}", f"{a} *= {number}", f"{a} -= {b} * {number}", f"{a}[0] = {b}",
         f"{a}[1:] = {number}", f"{a}.copy_({b})", f"{a}.copy_({a} * {number} + {b})"]
    )  # fmt: skip
    if a[0] in "pbx" and not change.startswith(f"{a}.copy_"):
        change = f"{a}.copy_({a} * {number} + {b})"  # the others would make it a local variable
    return w.choose.choice(["with tg.no_grad(): ", "with tg.no_grad(): ", ""]) + change


def _without_history(w: Writer) -> str:
    name = w.new()
    return f"with tg.no_grad(): {name} = {w.any()} * {w.any()} + 1.0"


def _backward(w: Writer) -> str:
    retain = w.choose.choice(["", "", "retain_graph=True", "retain_graph=True"])
    a = w.any()
    return w.choose.choice(
        [f"tg.sum({a}).backward({retain})", f"({a} * {w.any()}).mean().backward({retain})",
         f"{a}.backward(tg.ones_like({a}), {retain})", f"{a}.backward({w.any()}, {retain})"]
    )  # fmt: skip


def _grad(w: Writer) -> str:
    graph = w.choose.choice(["", ", create_graph=True", ", retain_graph=True"])
    return f"{w.new()} = tg.autograd.grad(tg.sum({w.any()}), {w.any()}{graph})[0]"


def _gradients(w: Writer) -> str:
    p = w.choose.choice([name for name in w.made if name[0] in "px"])
    return w.choose.choice(
        [f"{p}.grad = None", f"{w.new()} = {p}.grad * 2.0", f"{w.new()} = {p}.grad",
         f"with tg.no_grad(): {p}.copy_({p} - 0.1 * {p}.grad)", f"{p}.grad.copy_({p}.grad * 0.5)",
         f"{p}.grad = {p}.grad.clone()"]
    )  # fmt: skip


LINES: list[Callable[[Writer], str]] = [
    _elementwise, _elementwise, _binary, _binary, _binary, _again, _again, _reduction, _view, _view,
    _call, _made, _in_place, _in_place, _without_history, _backward, _backward, _backward, _grad,
    _gradients, _gradients,
]  # fmt: skip


# --- what happens between the calls ---------------------------------------------------------------


def meddle(world: World, results: list[Tensor | None], seed: int) -> None:
    """What a user may do with results, gradients and parameters; the same in both worlds."""
    choose = random.Random(seed)
    for t in [t for t in results if t is not None]:
        if choose.random() < 0.3 and t.data.flags.writeable:
            if choose.random() < 0.5:
                with tg.no_grad():
                    t.copy_(t * 0.5)
            else:
                t.data[...] *= 0.5
        if choose.random() < 0.4:
            world.kept.append(t)
    for p in world.parameters:
        if p.grad is not None:
            if choose.random() < 0.3:
                world.kept.append(p.grad)
            if choose.random() < 0.1:
                p.grad.data[...] *= 0.5
            if choose.random() < 0.1:
                p.grad = Tensor(np.asfortranarray(p.grad.data) * 0.25)
            elif choose.random() < 0.1:
                p.grad = None
        if choose.random() < 0.1:
            p.data = np.asfortranarray(p.data) * 1.5 if choose.random() < 0.5 else p.data * 0.5
        if choose.random() < 0.1:
            p.data[...] *= 0.5


def limited(world: World) -> None:
    """Keep parameters and buffers small, whatever the step does to them."""
    for name in ("p0", "p1", "p2", "b0", "b1"):
        data = world.names[name].data
        with np.errstate(all="ignore"):
            data[...] = np.tanh(np.nan_to_num(data))
    for p in world.parameters:
        if p.grad is not None and not (np.abs(p.grad.data) < 1e3).all():
            p.grad = None


def assert_equal(a: Tensor | None, b: Tensor | None, rtol: float, about: str) -> None:
    assert (a is None) == (b is None), about
    if a is not None and b is not None:
        a, b = a.data, b.data
        assert (a.shape, a.dtype) == (b.shape, b.dtype), about
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=about)


def check(seed: int, executor: str) -> str:
    """Seven calls in both worlds; what runs the step in the end: an executor, or why none does."""
    writer = Writer(seed)
    try:
        return compared(writer, [World(seed) for _ in range(2)], seed, executor)
    except BaseException as error:
        error.add_note(f"seed {seed}, executor {executor}, arguments {writer.kinds}\n{writer.text}")
        raise


def compared(writer: Writer, worlds: list[World], seed: int, executor: str) -> str:
    rtol = 1e-9 if worlds[0].dtype == tg.float64 else 1e-3
    steps: list[Any] = []
    for world in worlds:
        exec(writer.text, world.names)
        steps.append(world.names["step"])
    steps[1] = tg.compile(steps[1], executor=executor)
    for call in range(CALLS):
        given = [world.arguments(writer.kinds) for world in worlds]
        found: list[Any] = []
        for step, arguments in zip(steps, given):
            try:
                found.append(step(*arguments))
            except CompileError:
                return "refused"
            except (TensorgradError, TypeError, AttributeError) as error:  # no gradient, say
                found.append(error)
        if any(isinstance(f, Exception) for f in found):
            assert type(found[0]) is type(found[1]), found
            break
        for k, (a, b) in enumerate(zip(found[1], found[0], strict=True)):
            assert_equal(a, b, rtol, f"call {call + 1}, result {k}")
        for k, (a, b) in enumerate(zip(given[1], given[0])):
            assert_equal(a, b, rtol, f"call {call + 1}, argument {k}")
            assert_equal(a.grad, b.grad, rtol, f"call {call + 1}, gradient of argument {k}")
        for _ in range(2):  # after the call, and after what somebody did then
            for k, (a, b) in enumerate(zip(*[w.seen() for w in worlds[::-1]], strict=True)):
                assert_equal(a, b, rtol, f"call {call + 1}, seen {k}")
            for world, results in zip(worlds, found):
                meddle(world, results, seed * CALLS + call)
        for world in worlds:
            limited(world)
    if steps[1].reasons:
        return str(steps[1].reasons[0])
    return str(steps[1]._last().executor.name)


@pytest.fixture(autouse=True)
def _numpy_says_nothing() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@pytest.mark.parametrize("part", range(6))
def test_steps(part: int) -> None:
    ran = [check(seed, "numpy") for seed in range(part * 20, part * 20 + 20)]
    assert set(ran) == {"numpy"}


@pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")
@pytest.mark.parametrize("part", range(6))
def test_steps_in_c(part: int) -> None:
    """Where memory is seen through several views and overwritten, calls run in place of C."""
    ran = [check(seed, "native") for seed in range(part * 6, part * 6 + 6)]
    assert set(ran) <= {"native", "numpy"}
    assert ran.count("native") >= 2, ran


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_steps_at_random(executor: str) -> None:
    """New ones in every run, for a minute."""
    end = time.monotonic() + 60.0
    first = random.SystemRandom().randrange(1 << 40)
    for seed in itertools.count(first):
        check(seed, executor)
        if time.monotonic() > end:
            break


# --- gradients from before, and results that are gradients ----------------------------------------


@pytest.mark.parametrize("n", [3, 80], ids=["small", "large"])
@EVERY_EXECUTOR
def test_the_old_gradient_is_read_after_the_new_one(
    n: int, executor: str, rng: np.random.Generator
) -> None:
    """The new one must not be written over it, though nobody else keeps it."""
    start = rng.standard_normal((n, n)) * 0.1
    both = [Tensor(start, requires_grad=True) for _ in range(2)]

    def step(x: Tensor, w: Tensor) -> Tensor:
        old = w.grad
        w.grad = None
        (x @ w).sum().backward()
        if old is None:
            return x * 0.0
        with tg.no_grad():
            assert w.grad is not None
            w.grad.copy_(w.grad + old.T * 0.1)
        return (old.T @ x) * 2.0 + old.sum(axis=1)

    compiled = tg.compile(lambda x: step(x, both[0]), executor=executor)
    kept: list[tuple[Tensor, Any]] = []
    for k in range(CALLS):
        x = Tensor(rng.standard_normal((n, n)))
        found, wanted = compiled(x), step(x, both[1])
        assert_equal(found, wanted, 1e-9, f"call {k + 1}, result")
        assert_equal(both[0].grad, both[1].grad, 1e-9, f"call {k + 1}, gradient")
        kept.append((found, found.data.copy()))
        for t, copied in kept:
            np.testing.assert_array_equal(t.data, copied)
    assert compiled._last().executor.name == executor


@pytest.mark.parametrize("n", [3, 80], ids=["small", "large"])
@EVERY_EXECUTOR
def test_results_that_are_the_gradient(n: int, executor: str, rng: np.random.Generator) -> None:
    """Kept or let go, in any order: none of what is kept changes, and all of it is new."""
    w = Tensor(rng.standard_normal((n, n)), requires_grad=True)

    def step(x: Tensor) -> list[Tensor]:
        w.grad = None
        ((w * x) ** 2.0).sum().backward()
        assert w.grad is not None
        return [w.grad.detach(), w.grad * 1.0, w.grad.T]

    compiled = tg.compile(step, executor=executor)
    kept: list[tuple[Tensor, Any]] = []
    for k in range(2 * CALLS):
        x = Tensor(rng.standard_normal((n, n)))
        found = compiled(x)
        wanted = 2.0 * w.data * x.data**2
        for t in (w.grad, found[0], found[1], found[2].T):
            assert t is not None
            np.testing.assert_allclose(t.data, wanted, rtol=1e-9, err_msg=f"call {k + 1}")
        for j, t in enumerate([*found, w.grad]):
            if (k >> j) & 1:
                assert t is not None
                kept.append((t, t.data.copy()))
        for t, copied in kept:
            np.testing.assert_array_equal(t.data, copied)
    assert compiled._last().executor.name == executor


@pytest.mark.parametrize("n", [3, 80], ids=["small", "large"])
@EVERY_EXECUTOR
def test_equal_gradients_are_not_one(n: int, executor: str, rng: np.random.Generator) -> None:
    """Of two parameters, and beside an equal result: each may be changed by itself."""
    p, q = (Tensor(rng.standard_normal((n, n)), requires_grad=True) for _ in range(2))

    def step(x: Tensor) -> Tensor:
        p.grad = q.grad = None
        t = tg.tanh(x)
        (p * t * t + q * t * t).sum().backward()
        return t * t

    compiled = tg.compile(step, executor=executor)
    for k in range(CALLS):
        x = Tensor(rng.standard_normal((n, n)))
        found = compiled(x)
        seen: list[Any] = [found, p.grad, q.grad]
        for t in seen:
            wanted = np.tanh(x.data) ** 2
            np.testing.assert_allclose(t.data, wanted, rtol=1e-9, err_msg=f"call {k + 1}")
        for a, b in itertools.combinations(seen, 2):
            assert not np.shares_memory(a.data, b.data)
        seen[k % 3].data[...] = 7.0
    assert compiled._last().executor.name == executor


@pytest.mark.parametrize("keeps", [(), (2,), (2, 3), (3, 4, 5), (2, 4, 6), (5,)], ids=str)
@EVERY_EXECUTOR
def test_gradients_that_are_added_to(
    keeps: tuple[int, ...], executor: str, rng: np.random.Generator
) -> None:
    """Two pieces of memory in turn, unless somebody keeps what is in one, or is handed it."""
    w = Tensor(rng.standard_normal((5, 4)), requires_grad=True)

    def step(x: Tensor) -> Tensor | None:
        before = w.grad
        (w * x).sum().backward()
        return before

    compiled = tg.compile(step, executor=executor)
    wanted = np.zeros((5, 4))
    kept: list[tuple[Tensor, Any]] = []
    for k in range(2 * CALLS):
        x = Tensor(rng.standard_normal((5, 4)))
        before = compiled(x)
        if before is not None:
            kept.append((before, wanted))
        wanted = wanted + x.data
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.data, wanted, rtol=1e-9, err_msg=f"call {k + 1}")
        if k % CALLS in keeps:
            kept.append((w.grad, wanted))
        for t, then in kept:
            np.testing.assert_allclose(t.data, then, rtol=1e-9, err_msg=f"call {k + 1}")
    assert compiled._last().executor.name == executor
