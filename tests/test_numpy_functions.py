"""NumPy's functions called on tensors: NumPy's meaning for every argument, or refused."""

from __future__ import annotations

import inspect
import itertools
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import GradientError
from tensorgrad.ops import numpy_linalg, numpy_names

#: What is arbitrary, or no array, is not among them.
ROWS = [
    row for row in (*numpy_names._ROWS, *numpy_linalg.ROWS)
    if row[0] not in ("can_cast", "einsum_path", "empty_like", "result_type")
]  # fmt: skip
REFUSED = (TypeError, ValueError, IndexError, OverflowError)
RNG = np.random.default_rng(0)
ARRAYS: list[Any] = [
    np.array(-1.5),
    np.array([2.5, -1.0, 0.0]),
    np.array([[3.0, -1.5, 2.0], [0.5, 1.5, -4.0]]),
    RNG.standard_normal((3, 3)),
    RNG.standard_normal((2, 3, 3)),
    np.array([[1, 2, 0], [3, -4, 5]]),
    np.array([True, False, True]),
    np.zeros((0, 3)),
]
DEFINITE = RNG.standard_normal((2, 3, 3)) * 0.3 + np.diag([1.0, 2.0, 3.0])
#: What is tried for an argument, by its name; for the first ones see ``calls``.
VALUES: dict[str, list[Any]] = {
    "axis": [None, 0, 1, -1, 2, (0, 1), (-1,), ()],
    "axis1": [1, -1],
    "axis2": [0, -1],
    "axes": [1, 0, ([0], [0]), (1, 0), None],
    "a_min": [None, -1.0],
    "a_max": [None, 1.0],
    "min": [None, 0.5],
    "max": [None, 0.5],
    "casting": ["same_kind", "unsafe"],
    "constant_values": [3, (1, 2)],
    "copy": [None, True, False],
    "correction": [1, 0.5],
    "ddof": [1, 0],
    "decimals": [0, 1, -1],
    "device": [None, "cpu"],
    "dtype": [None, np.float32, np.int64, np.float64],
    "endpoint": [True, False],
    "equal_nan": [True, False],
    "include_initial": [True, False],
    "indexing": ["xy", "ij"],
    "initial": [1.0, -7.0],
    "k": [1, -1],
    "keepdims": [True, False],
    "kind": ["stable", "quicksort"],
    "M": [2, 4],
    "mean": [0.0],
    "mode": ["edge", "reflect", "wrap", "clip", "raise", "linear_ramp", "maximum"],
    "num": [3, 4],
    "offset": [1, -1],
    "optimize": [True],
    "UPLO": ["L", "U"],
    "compute_uv": [True, False],
    "full_matrices": [True, False],
    "hermitian": [True, False],
    "ind": [1, 2],
    "n": [2, 5],
    "p": [None, 1, -1, 2, -2, math.inf, "fro"],
    "rcond": [None, 0.1],
    "rtol": [0.1],
    "tol": [None, 0.5],
    "upper": [True, False],
    "ord": [None, 1, 2, 3, -1, -2, 0, math.inf, -math.inf, "fro", "nuc"],
    "order": ["C", "F", "K", "A"],
    "out": [None, np.zeros(3), np.zeros((2, 3)), np.zeros(())],
    "reflect_type": ["even", "odd"],
    "retstep": [False, True],
    "return_counts": [True],
    "return_index": [True],
    "return_inverse": [True],
    "shape": [(3,), (2, 2)],
    "side": ["left", "right"],
    "sorter": [np.array([2, 1, 0])],
    "sparse": [True, False],
    "stable": [True, None],
    "subok": [True, False],
    "sorted": [True],
    "step": [2],
    "stop": [5],
    "where": [True, np.array([True, False, True])],
    "x": [ARRAYS[1]],
    "y": [ARRAYS[1] * 2],
}
#: The first arguments of functions that take more than an array.
FIRST: dict[str, Callable[[Any], list[tuple[Any, ...]]]] = {
    "arange": lambda x: [(3,)],
    "atleast_1d": lambda x: [(x,), (x, x)],
    "atleast_2d": lambda x: [(x,), (x, x)],
    "broadcast_arrays": lambda x: [(x, ARRAYS[1]), (x,)],
    "broadcast_to": lambda x: [(x, (2, 3)), (x, (2, 3, 3)), (x, (3, 3))],
    "concat": lambda x: [([x, x],), ((x, x * 2, x),)],
    "concatenate": lambda x: [([x, x],), ((x, x * 2, x),)],
    "dot": lambda x: [(x, ARRAYS[1]), (x, x), (ARRAYS[4], x), (x, 2.0), (x, ARRAYS[3])],
    "einsum": lambda x: [
        ("ij->ji", x),
        ("i,i", x, x),
        ("...i->...", x),
        (x, [0, 1], [1, 0]),
        ("ij,jk", x, ARRAYS[3]),
    ],
    "expand_dims": lambda x: [(x, 0), (x, -1), (x, (0, 2))],
    "eye": lambda x: [(3,)],
    "full": lambda x: [((2, 3), 1.5), (3, 2), ((2, 3), x)],
    "full_like": lambda x: [(x, 1.5), (x, x)],
    "kron": lambda x: [(x, x), (x, ARRAYS[1]), (ARRAYS[2], x)],
    "linspace": lambda x: [(0.0, x), (x, 2.0)],
    "meshgrid": lambda x: [(x,), (x, ARRAYS[1]), (ARRAYS[1], x, np.array([1.0, 2.0]))],
    "moveaxis": lambda x: [(x, 0, -1), (x, [0, 1], [1, 0])],
    "ones": lambda x: [((2, 3),)],
    "outer": lambda x: [(x, ARRAYS[1]), (x, x)],
    "pad": lambda x: [(x, 1), (x, (1, 2)), (x, ((0, 1),))],
    "repeat": lambda x: [(x, 2), (x, [1, 0, 2]), (x, 0)],
    "reshape": lambda x: [(x, -1), (x, (-1, 3)), (x, (3, 2))],
    "roll": lambda x: [(x, 1), (x, (1, -1)), (x, -4)],
    "searchsorted": lambda x: [(np.array([-1.0, 0.5, 2.0]), x), (np.array([2.0, 0.5, -1.0]), x)],
    "split": lambda x: [(x, 1), (x, 3), (x, [1]), (x, [1, 2]), (x, 2)],
    "stack": lambda x: [([x, x],), ((x, x * 2),)],
    "swapaxes": lambda x: [(x, 0, 1), (x, -1, 0), (x, 0, 2)],
    "take": lambda x: [(x, 1), (x, [0, -1]), (x, np.array([[0, 1], [1, 0]])), (x, 7)],
    "take_along_axis": lambda x: [(x, np.zeros_like(x, int)), (x, np.zeros(2, int))],
    "tensordot": lambda x: [(x, x), (x, ARRAYS[3]), (x, ARRAYS[4])],
    "tile": lambda x: [(x, 2), (x, (2, 1)), (x, (1, 2, 2))],
    "where": lambda x: [(x,), (x, 1.0, x), (np.array([True, False, True]), x, 0.0)],
    "zeros": lambda x: [((2, 3),)],
    "linalg.cholesky": lambda x: [(x,), (DEFINITE,), (DEFINITE[1],)],
    "linalg.cross": lambda x: [(x, ARRAYS[1]), (x, x), (x, ARRAYS[3])],
    "linalg.det": lambda x: [(x,), (DEFINITE,)],
    "linalg.eig": lambda x: [(x,), (DEFINITE,)],
    "linalg.eigvals": lambda x: [(x,), (DEFINITE,)],
    "linalg.inv": lambda x: [(x,), (DEFINITE,)],
    "linalg.slogdet": lambda x: [(x,), (DEFINITE,)],
    "linalg.lstsq": lambda x: [(x, x), (x, ARRAYS[1]), (DEFINITE[0, :, :2], x)],
    "linalg.matrix_power": lambda x: [(x, 3), (x, 0), (x, -2)],
    "linalg.multi_dot": lambda x: [([x, x, x],), ([ARRAYS[1], x, x],), ([x, ARRAYS[1]],)],
    "linalg.solve": lambda x: [(x, x), (x, ARRAYS[1]), (DEFINITE, x)],
    "linalg.tensorinv": lambda x: [(x,), (DEFINITE[0],)],
    "linalg.tensorsolve": lambda x: [(x, ARRAYS[1]), (DEFINITE[0], x)],
    "linalg.matmul": lambda x: [(x, ARRAYS[3]), (ARRAYS[4], x), (x, ARRAYS[1]), (x, x)],
    "linalg.outer": lambda x: [(x, ARRAYS[1]), (x, x)],
    "linalg.tensordot": lambda x: [(x, x), (x, ARRAYS[3])],
    "linalg.vecdot": lambda x: [(x, x), (x, ARRAYS[1]), (ARRAYS[3], x)],
}
#: The only ones for which no tensor tells NumPy to ask us, other than ``like=``.
MAKERS = {"arange", "eye", "full", "ones", "zeros"}


def named(name: str) -> Any:
    found: Any = np
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def with_tensors(value: Any) -> Any:
    """``value`` with tensors in place of its arrays."""
    if isinstance(value, np.ndarray):
        return Tensor(value)
    if isinstance(value, list | tuple):
        return type(value)(with_tensors(x) for x in value)
    return value


def calls(name: str, form: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments: the first ones alone, with one more, and with two more."""
    arguments = [t.lstrip("!~*").partition("=")[0] for t in form.split()]
    options = [key for key in arguments if key in VALUES]
    for x in ARRAYS:
        for first in FIRST[name](x) if name in FIRST else [(x,)]:
            yield first, {}
            for key in options:
                for value in VALUES[key]:
                    yield first, {key: value}
                    if arguments.index(key) == len(first) and "*" not in form and key != "out":
                        yield (*first, value), {}
            for one, two in itertools.combinations(options, 2):
                if "axis" in (one, two) or "ord" in (one, two):
                    for a, b in itertools.product(VALUES[one], VALUES[two]):
                        yield first, {one: a, two: b}


def outcome(function: Any, args: Any, kwargs: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)
    except (*REFUSED, AttributeError) as error:
        return error


def same(found: Any, right: Any) -> None:
    if isinstance(right, list | tuple):
        assert isinstance(found, list | tuple)
        assert len(found) == len(right)
        for a, b in zip(found, right, strict=True):
            same(a, b)
        return
    if isinstance(right, int):  # the shape and what follows from it
        assert found == right
        return
    assert isinstance(found, Tensor)
    right = np.asarray(right)
    assert found.shape == right.shape
    # of truth values and short integers NumPy computes in 16 bits
    close = 1e-3 if right.dtype == np.float16 else 1e-6
    wide = np.complex128 if found.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(found.numpy().astype(wide), right, rtol=close, atol=close)


def test_forms_name_the_arguments_that_numpy_has() -> None:
    """In its order, as far as this NumPy says what they are."""
    for function, (name, _, form) in numpy_names.functions().items():
        try:
            known = list(inspect.signature(function).parameters)
        except ValueError:
            continue
        ours = [t.lstrip("!~*").partition("=")[0] for t in form.split()]
        if not form or name in ("arange", "where", "concatenate", "concat", "dot"):
            continue  # of older versions these are not told
        assert [k for k in ours if k in known] == [k for k in known if k in ours], name
        assert ours[0] in known, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_numpys_meaning_or_an_error(name: str) -> None:
    function = named(name)
    if function is None:
        pytest.skip("this NumPy has no such function")
    ours, form = next((ours, form) for known, ours, form in ROWS if known == name)
    form = form or " ".join(inspect.signature(ours).parameters)
    agreed = 0
    for args, kwargs in calls(name, form):
        given: Any = with_tensors(args), {k: with_tensors(v) for k, v in kwargs.items()}
        if name in MAKERS:
            given[1]["like"] = Tensor(1.0)
        found = outcome(function, *given)
        if kwargs.get("out") is not None:  # NumPy 2.4 dies of some that do not fit
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
            assert isinstance(found, Exception) or found is given[1]["out"], (args, kwargs)
        right = outcome(function, args, kwargs)
        if isinstance(right, Exception) or isinstance(found, Exception):
            assert not isinstance(found, AttributeError), (args, kwargs)
            continue
        if name == "unique_values":
            right = np.sort(right)  # NumPy promises no order
        try:
            same(found, right)
        except AssertionError as error:
            raise AssertionError(f"np.{name}(*{args}, **{kwargs})") from error
        agreed += 1
    assert agreed >= 3


def ufuncs_of(module: types.ModuleType) -> list[str]:
    return [name for name in dir(module) if isinstance(getattr(module, name), np.ufunc)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ufuncs_of(np))
def test_ufuncs(name: str) -> None:
    """NumPy's values where both give some; a clear refusal where there is no counterpart."""
    function = getattr(np, name)
    agreed = 0
    for arrays in itertools.product(ARRAYS, repeat=function.nin):
        right = outcome(function, arrays, {})
        found = outcome(function, with_tensors(arrays), {})
        if isinstance(found, Exception):
            if function not in numpy_names.ufuncs():
                assert "has no counterpart with gradients" in str(found)
        elif not isinstance(right, Exception):
            try:
                same(found, right)
            except AssertionError as error:
                raise AssertionError(f"np.{name}(*{arrays})") from error
            agreed += 1
    assert agreed or function not in numpy_names.ufuncs()


@pytest.mark.parametrize("module", [np, np.linalg, np.emath], ids=lambda m: m.__name__)
def test_functions_without_a_counterpart_are_refused(module: types.ModuleType) -> None:
    """Not the function of the same name in another module."""
    for name in dir(module):
        function = getattr(module, name)
        if name.startswith("_") or not callable(function) or isinstance(function, type):
            continue
        if function in numpy_names.functions() or isinstance(function, np.ufunc):
            continue
        if module is np.fft or function in numpy_names._OF_ARRAYS:
            continue
        if not hasattr(function, "_implementation"):  # it knows nothing of tensors
            continue
        for args in ((ARRAYS[3],), (ARRAYS[3], ARRAYS[3])):
            found = outcome(function, with_tensors(args), {})
            assert isinstance(found, Exception), f"{module.__name__}.{name} gave {found}"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: np.emath.sqrt(-x), "np.lib.scimath.sqrt has no counterpart"),
        (lambda x: np.packbits(x), "np.packbits has no counterpart"),
        (lambda x: np.isnat(x), "np.isnat has no counterpart"),
        (lambda x: np.divmod.outer(x, x), "np.divmod.outer: NumPy has it for"),
        (lambda x: np.exp(x, where=x > 0), "np.exp: with where= and no out="),
        (lambda x: np.max(x, where=x > 0), "np.max: where= needs an initial value"),
        (lambda x: np.argsort(x, order="f"), "np.argsort: order='f' has no counterpart"),
        (lambda x: np.reshape(x, (9,), order="F"), "np.reshape: order='F' has no counterpart"),
    ],
)
def test_refusals_name_the_function(call: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        call(Tensor(ARRAYS[3]))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.linalg.norm(x, "fro"),
        lambda x: np.linalg.norm(x, 1, axis=(0, 1)),
        lambda x: np.linalg.trace(x[None]).sum(),
        lambda x: np.sum(x, 0, None, None, True).sum(),
        lambda x: np.std(x, ddof=1),
        lambda x: np.cumsum(x)[-1],
        lambda x: np.sort(x, None)[0],
        lambda x: np.where(x > 0, x, 0.0).sum(),
    ],
)
def test_gradients_flow(call: Callable[[Tensor], Tensor]) -> None:
    x = Tensor(ARRAYS[3], requires_grad=True)
    y = call(x)
    y.backward()
    assert x.grad is not None
    assert x.grad.numpy().any()


# --- into arrays ----------------------------------------------------------------------------------


def test_a_tensor_is_added_to_an_array() -> None:
    a = np.ones(2, np.float32)
    a += tg.tensor([1.0, 2.0])
    assert a.tolist() == [2, 3]
    a *= tg.tensor([1.0, 2.0])
    assert a.tolist() == [2, 6]
    found = np.maximum(tg.tensor([3.0, 3.0]), a, out=a)
    assert found is a
    assert a.tolist() == [3, 6]


def test_an_array_takes_no_tensor_that_requires_a_gradient() -> None:
    a = np.ones(2, np.float32)
    with pytest.raises(GradientError, match=r"detach\(\).numpy\(\)"):
        a += tg.tensor([1.0, 2.0], requires_grad=True)
    assert a.tolist() == [1, 1]


def test_another_library_is_asked_too() -> None:
    class Other:
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> str:
            return "theirs"

    assert np.isnat.at is not None
    other: Any = Other()
    assert np.cbrt(Tensor(1.0), out=(other,)) == "theirs"
