"""Value functions read as loops: what they write down, against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program import value_fuzz
from program.captured import Captured
from program.executors import EVERY_EXECUTOR
from program.loop_reference import computed, lowered

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import custom_operation
from tensorgrad.errors import CompileError
from tensorgrad.program import symbolic
from tensorgrad.program.loop_ir import Call, Map, Reduce
from tensorgrad.program.lower import Lowering
from tensorgrad.tape import Primitive, apply

RNG = np.random.default_rng


def reference(value: Callable[..., Any], arrays: list[Any], mutates: tuple[int, ...]) -> list[Any]:
    own = [a.copy() for a in arrays]
    with np.errstate(all="ignore"):
        y = value(np, *own)
    return [y, *[own[k] for k in mutates]]


def is_close(found: list[Any], wanted: list[Any]) -> bool:
    return all(
        a.dtype == b.dtype
        and a.shape == np.shape(b)
        and np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
        for a, b in zip(found, wanted, strict=True)
    )


def followed(seed: int, count: int = 12) -> bool | None:
    """Whether a random value function gives by loops what it gives; None if it has none."""
    rng = RNG(seed)
    value, _ = value_fuzz.draw(rng, count)
    arrays = value_fuzz.inputs(rng)
    wanted = reference(value, arrays, value_fuzz.MUTATED)
    found = computed(value, arrays, value_fuzz.MUTATED)
    return None if found is None else is_close(found, wanted)


@pytest.mark.parametrize("part", range(4))
def test_random_values_give_what_numpy_gives(part: int) -> None:
    found = [followed(seed, 10 + 5 * part) for seed in range(100 * part, 100 * part + 100)]
    assert False not in found
    assert found.count(True) > 90


@pytest.mark.skipif("native" not in str(EVERY_EXECUTOR.args), reason="no compiler")
@pytest.mark.parametrize("part", range(2))
def test_random_values_give_in_c_what_numpy_gives(part: int) -> None:
    cases = []
    for seed in range(1000 * part, 1000 * part + 25):
        rng = RNG(seed)
        value, text = value_fuzz.draw(rng, 14)
        rules = dict.fromkeys("abcms")
        op = Primitive("tested", value, rules, mutates=value_fuzz.MUTATED)
        cases.append((op, value, text, [Tensor(a) for a in value_fuzz.inputs(rng)]))

    def step() -> list[Tensor]:
        return [apply(op, tensors) for op, _, _, tensors in cases]

    program = Captured(step, [])
    for _ in range(2):
        before = [[t.numpy().copy() for t in tensors] for *_, tensors in cases]
        results = program()
        for (_, value, text, tensors), arrays, y in zip(cases, before, results, strict=True):
            wanted = reference(value, arrays, value_fuzz.MUTATED)
            left = [tensors[k].numpy() for k in value_fuzz.MUTATED]
            assert is_close([y, *left], wanted), text
            for t, a in zip(tensors, arrays):  # or what is iterated would grow
                t.data[...] = a * 0.9


def _views_do_not_follow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(symbolic.SymbolicArray, "elements", property(lambda self: self._view))


def _redirects_what_others_see(patch: pytest.MonkeyPatch) -> None:
    original = Lowering.write
    patch.setattr(
        Lowering, "write", lambda self, out, value, fresh: original(self, out, value, True)
    )


def _remembers_what_was_overwritten(patch: pytest.MonkeyPatch) -> None:
    def remember(self: Any, key: Any, reads: Any, found: Any) -> None:
        self._known[key] = found

    patch.setattr(Lowering, "_remember", remember)


def _scalars_are_arrays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(symbolic.SymbolicArray, "as_scalar", lambda self: self)


def _parts_go_to_shared_storages(patch: pytest.MonkeyPatch) -> None:
    def shared(self: Any, memory: Any) -> None:
        memory.storage.in_parts = True

    patch.setattr(symbolic.SymbolicNamespace, "_make_own", shared)


FAULTS = [
    _views_do_not_follow,
    _redirects_what_others_see,
    _remembers_what_was_overwritten,
    _scalars_are_arrays,
    _parts_go_to_shared_storages,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__[1:])
def test_the_random_values_find_planted_faults(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert any(followed(seed, 30) is False for seed in range(1500))


# --- what a value may be written with -----------------------------------------------------------


def ways(xp: Any, x: Any) -> dict[str, Callable[[], Any]]:
    return {
        "xp": lambda: xp.exp(x),
        "np": lambda: np.exp(x),
        "np.maximum": lambda: np.maximum(x, 0.5),
        "np.where": lambda: np.where(x > 0, x, -x),
        "np.sum": lambda: np.sum(x, axis=1),
        "np.clip": lambda: np.clip(x, -0.5, 0.5),
        "operators": lambda: (2 - x) / (1 + abs(x)) ** 3,
        "float64": lambda: x * np.float64(2),
        "mean": lambda: x.mean(axis=0) + x.var(axis=0, keepdims=True),
        "slices": lambda: x[1:, ::-1] - x[:-1],
        "matmul": lambda: x @ x.T,
        "out": lambda: np.multiply(x, 2, out=np.add(x, 1)) if xp is np else xp.add(x, x),
        "concatenate": lambda: xp.concatenate([x, x[:1]], 0),
        "tril": lambda: xp.tril(x),
        "power": lambda: x**2 + abs(x) ** 0.5 + 2.0**x,
    }


WAYS = list(ways(np, np.zeros((2, 2))))


@pytest.mark.parametrize("way", WAYS)
def test_a_value_may_be_written_in_many_ways(way: str) -> None:
    x = RNG(0).normal(size=(3, 4)).astype(np.float32)
    made = computed(lambda xp, x: ways(xp, x)[way](), [x])
    assert made is not None
    (found,) = made
    if way == "out":
        return  # the last line has shown that a function without symbols runs as it is
    wanted = ways(np, x)[way]()
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


REFUSED = {
    "branch": (lambda xp, x: x if x.sum() > 0 else -x, "branches on a value"),
    "float": (lambda xp, x: x * float(x.sum()), "reads a value"),
    "math": (lambda xp, x: x * math.sqrt(x[0, 0] ** 2), "reads a value"),
    "index": (lambda xp, x: x[xp.argsort(x[:, 0])], "argsort"),
    "unknown": (lambda xp, x: xp.cumsum(x, 0), "cumsum has no loop form"),
    "input": (lambda xp, x: xp.add(x, 1, out=x), "does not mutate"),
    "made elsewhere": (lambda xp, x: x + np.ones(4, np.float32), "made elsewhere"),
    "a ufunc": (lambda xp, x: xp.spacing(x), "spacing has no loop form"),
    "swallowed": (lambda xp, x: _swallowing(x), "branches on a value"),
    "an error": (lambda xp, x: x if xp is np else x.missing, "AttributeError"),
    "a loop": (lambda xp, x: sum((x * k for k in range(1000)), x), "too many operations"),
}


def _swallowing(x: Any) -> Any:
    try:
        return x if x.sum() > 0 else -x
    except Exception:
        return x


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_followed_is_a_call_with_the_reason(name: str) -> None:
    value, reason = REFUSED[name]
    lowering, _, _ = lowered(value, [abs(RNG(0).normal(size=(3, 4))).astype(np.float32)])
    (call,) = lowering.operations
    assert isinstance(call, Call)
    assert reason in call.reason


def test_an_out_of_range_index_is_an_error_as_in_numpy() -> None:
    def value(xp: Any, x: Any) -> Any:
        try:
            return x[5]
        except IndexError:
            return x[0] * 2

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = computed(value, [x])
    assert found is not None
    np.testing.assert_array_equal(found[0], x[0] * 2)


def test_small_powers_are_products_and_arange_needs_no_memory() -> None:
    def value(xp: Any, x: Any) -> Any:
        return x**3 * (xp.arange(4) == 1)

    x = np.ones((3, 4), np.float32)
    operations = lowered(value, [x])[0].operations
    assert [op.name for op in operations if isinstance(op, Map)][:3] == ["multiply"] * 2 + ["index"]
    column = next(op.out.storage for op in operations if isinstance(op, Map) and op.name == "index")
    assert not any(v.storage is column for op in operations for v in op.views)


def test_a_product_of_two_vectors_is_a_sum() -> None:
    x = np.ones(5, np.float32)
    lowering, _, _ = lowered(lambda xp, x, y: xp.add(x @ y, 1), [x, x])
    assert [type(op) for op in lowering.operations] == [Map, Reduce, Map]


# --- operations of the user's own ---------------------------------------------------------------


FACTOR = 2.0


def _helper(x: Any) -> Any:
    return x * FACTOR


def _operation(value: Callable[..., Any]) -> Any:
    return custom_operation(value, x=lambda g, x: g)


def _calls(step: Any) -> list[str]:
    return [line for line in step.report().splitlines() if line.startswith("call")]


@EVERY_EXECUTOR
def test_a_users_operation_is_part_of_the_loops(executor: str) -> None:
    @custom_operation(x=lambda g, x: g / (1.0 + abs(x)) ** 2)
    def softsign(x: Any) -> Any:
        return x / (1 + abs(x))

    step = tg.compile(lambda x: softsign(x * 2) + 1, executor=executor)
    x = tg.linspace(-2.0, 2.0, 7)
    for _ in range(3):
        np.testing.assert_allclose(step(x).numpy(), (softsign(x * 2) + 1).numpy(), rtol=1e-6)
    assert executor == "numpy" or not _calls(step)
    fused = tg.fuse(lambda x: softsign(x) * 2)
    fused(x)
    assert fused.source("cuda").count("__global__") == 1


def _change_the_global(change: Any) -> None:
    change.setitem(globals(), "FACTOR", 5.0)


def _change_the_helper(change: Any) -> None:
    change.setitem(globals(), "_helper", lambda x: x - 1)


def _change_the_code(change: Any) -> None:
    change.setattr(_helper, "__code__", (lambda x: x - 1).__code__)


@EVERY_EXECUTOR
@pytest.mark.parametrize(
    "change", [_change_the_global, _change_the_helper, _change_the_code], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("fused", [False, True], ids=["compile", "fuse"])
def test_what_a_users_value_reads_is_looked_at_again(
    change: Callable[[Any], None], fused: bool, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = _operation(lambda x: _helper(x) + 1)
    run: Any = lambda x: operation(x) * 2  # noqa: E731
    step = tg.fuse(run) if fused else tg.compile(run, executor=executor)
    x = tg.linspace(-2.0, 2.0, 7)
    for _ in range(3):
        np.testing.assert_allclose(step(x).numpy(), (operation(x) * 2).numpy(), rtol=1e-6)
    change(monkeypatch)
    wanted = (operation(x) * 2).numpy()
    for _ in range(3):
        np.testing.assert_allclose(step(x).numpy(), wanted, rtol=1e-6)


@EVERY_EXECUTOR
def test_variables_around_and_defaults_of_a_users_value_are_looked_at_again(executor: str) -> None:
    share = 2.0

    def scaled(x: Any, *, by: float = 3.0) -> Any:
        return x * by

    @custom_operation(x=lambda g, x: g)
    def operation(x: Any) -> Any:
        return scaled(x) * share + sum([part * 2.0 for part in (share, share)])

    step = tg.compile(lambda x: operation(x) + 1, executor=executor)
    x = tg.linspace(-2.0, 2.0, 7)

    def check() -> None:
        for _ in range(3):
            np.testing.assert_allclose(step(x).numpy(), (operation(x) + 1).numpy(), rtol=1e-6)

    check()
    assert executor == "numpy" or not _calls(step)
    share = 4.0
    check()
    defaults: Any = scaled.__kwdefaults__
    defaults["by"] = 7.0
    check()
    scaled.__kwdefaults__ = {"by": 8.0}
    check()


class _Box:
    factor = 2.0


BOX, LIST = _Box(), [2.0]


UNKNOWN: dict[str, Callable[..., Any]] = {
    "an object": lambda x: x * BOX.factor,
    "a list": lambda x: x * LIST[0],
    "a class": lambda x: x * _Box.factor,
    "a builtin with an effect": lambda x: [x, print(end="")][0] * 2.0,
    "random numbers": lambda x: x * np.random.rand(),  # noqa: NPY002
}


@pytest.mark.skipif("native" not in str(EVERY_EXECUTOR.args), reason="no compiler")
@pytest.mark.parametrize("name", list(UNKNOWN))
def test_a_value_that_reads_what_cannot_be_compared_stays_a_call(name: str) -> None:
    operation = _operation(UNKNOWN[name])
    program = Captured(lambda x: operation(x) + 1, [tg.ones(3)])
    lowering = Lowering(program.program)
    (call,) = [op for op in lowering.operations if isinstance(op, Call)]
    assert call.reason.startswith("its value")
    BOX.factor += 1
    LIST[0] += 1
    _Box.factor += 1
    if name != "random numbers":
        np.testing.assert_allclose(program(tg.ones(3))[0], operation(tg.ones(3)).numpy() + 1)


def test_a_value_whose_reads_change_within_the_step_stays_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operation = _operation(lambda x: x * FACTOR)

    def step(x: Tensor) -> Tensor:
        y = operation(x)
        monkeypatch.setitem(globals(), "FACTOR", FACTOR + 1.0)
        return y + operation(x)

    program = Captured(step, [tg.ones(3)])
    reasons = {op.reason for op in Lowering(program.program).operations if isinstance(op, Call)}
    assert reasons == {"what its value reads changes within the step"}


def test_a_kernel_of_the_users_own_is_not_called_with_symbols() -> None:
    operation = _operation(lambda x: x * 2)

    def kernel(x: Any) -> Any:
        raise AssertionError("called on the CPU")

    operation.cuda(kernel)
    step = tg.compile(lambda x: operation(x) + 1)
    assert step(tg.ones(3)).tolist() == [3.0, 3.0, 3.0]
    assert not _calls(step) or step.executor == "numpy"
    with pytest.raises(CompileError):
        tg.compile(lambda x: x * x.sum().item())(tg.ones(3))


# --- draws and places ---------------------------------------------------------------------------


@EVERY_EXECUTOR
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_and_places_are_those_of_eager_mode_to_the_bit(dtype: str, executor: str) -> None:
    def step(x: Tensor) -> list[Tensor]:
        return [
            tg.random.uniform((2, 7), 0.0, 3.0, dtype=dtype),
            tg.random.uniform((), -1.0, 3.0, dtype=dtype),
            tg.random.randint(3, 100, (4, 3)),
            tg.argmax(x, axis=1),
            tg.argmin(x, keepdims=True),
            tg.cumulative_sum(x, axis=0),
            tg.any(x > 3, axis=0),
            tg.all(x == x, axis=(0, 1)),
            tg.count_nonzero(x > 0.5),
        ]

    compiled = tg.compile(step, executor=executor)
    x = tg.Tensor(RNG(0).normal(size=(3, 5)), dtype=dtype)
    x.data[1, 2] = np.nan
    x.data[0, 1:3] = 9.0
    for seed in (1, 2**63 + 1, 3):
        tg.random.seed(seed)
        found = compiled(x)
        tg.random.seed(seed)
        for a, b in zip(found, step(x), strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a.numpy(), b.numpy())
