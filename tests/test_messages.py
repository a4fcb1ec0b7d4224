"""What is no tensor, memory that must not be written, and what the messages advise."""

from __future__ import annotations

import ast
import datetime
import fractions
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.errors import DtypeError

PACKAGE = Path(tg.__file__).parent
#: The functions, for arguments that their types do not allow.
FUNCTIONS: Any = tg


# --- what is no number ----------------------------------------------------------------------------

NO_NUMBERS: list[tuple[Any, str]] = [
    (None, "got None; where a number is missing, write float"),
    ([1.0, None], "got None in a list"),
    ([[1.0, 2.0], [3.0, None]], "got None in a list"),
    ((1.0, None), "got None in a tuple"),
    (2**70, "1180591620717411303424 is too large for 64 bits"),
    ([1, -(2**64)], "-18446744073709551616 is too large for 64 bits"),
    ({1, 2}, r"a set has no order; give a list, as in sorted\(x\)"),
    ([{1}], "a set in a list has no order"),
    ({"a": 1}, r"got a dict; give a list of its numbers, as in list\(x.values\(\)\)"),
    ((i for i in range(3)), r"got a generator; give a list, as in list\(x\)"),
    (map(int, "12"), "got a map; give a list"),
    ({1: 2}.values(), "got a dict_values; give a list"),
    ("1.5", r"got the text '1.5'; convert it with float\(x\)"),
    (["a", "b"], "got the text 'a' in a list"),
    (b"ab", "got the text b'ab'"),
    (np.array(["1.5"]), "got the text '1.5'"),
    (np.array([1.0, None]), "got None"),
    (fractions.Fraction(1, 2), r"got a Fraction; convert it with float\(x\)"),
    (datetime.date(2020, 1, 1), "got a date; known are bfloat16"),
    (object(), "got a object"),
    (len, "got a builtin_function_or_method"),
    (..., "got a ellipsis"),
]


@pytest.mark.parametrize("number", range(len(NO_NUMBERS)))
def test_what_is_no_number(number: int) -> None:
    value, text = NO_NUMBERS[number]
    makers: list[Any] = [tg.tensor, tg.asarray]
    if value is not None and not isinstance(value, int):
        makers.append(lambda x: tg.ones(2) * x)
    for make in makers:
        if hasattr(value, "__next__"):
            value = (i for i in range(3)) if "generator" in text else map(int, "12")
        with pytest.raises(DtypeError, match=text):
            make(value)


def test_a_dtype_makes_no_number_of_it() -> None:
    for value in (None, [None], "1.5", {1}, np.array(["1"])):
        with pytest.raises(DtypeError, match="a tensor needs numbers"):
            tg.tensor(value, dtype=tg.float32)


def test_objects_that_are_numbers() -> None:
    assert tg.tensor(np.array([1, 2.5], object), dtype=tg.float32).tolist() == [1, 2.5]
    assert tg.tensor(range(3)).tolist() == [0, 1, 2]
    assert tg.tensor(2**63).dtype == tg.uint64


@pytest.mark.parametrize(
    "make",
    [
        tg.tensor,
        tg.asarray,
        lambda x: tg.tensor([x, x]),
        lambda x: tg.ones(2) * x,
        lambda x: tg.zeros(2).copy_(x),
        lambda x: tg.zeros((1, 2)).__setitem__(0, x),
        lambda x: tg.exp(x[1]),
    ],
)
def test_masked_arrays(make: Callable[[Any], Any]) -> None:
    """The mask would be dropped, and what is masked become a number."""
    with pytest.raises(ValueError, match=r"x\.filled\(float\('nan'\)\)"):
        make(np.ma.array([1.0, 999.0], mask=[False, True]))


def test_masked_arrays_of_which_nothing_is_masked() -> None:
    assert tg.tensor(np.ma.array([1.0, 2.0])).tolist() == [1, 2]
    assert tg.tensor(np.ma.array([1.0, 2.0], mask=[False, False])).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: tg.exp(None), "exp: a tensor or a number is needed; got None"),
        (lambda x: tg.sum(None), "sum: a tensor or a number is needed; got None"),
        (lambda x: x @ None, "matmul: a tensor or a number is needed; got None"),
        (lambda x: tg.add(None, x), "add: a tensor or a number is needed; got None"),
        (lambda x: tg.reshape(None, (1,)), "reshape: a tensor or a number is needed; got None"),
        (lambda x: nn.functional.linear(x, None), "linear: a tensor or a number is needed"),
        (lambda x: tg.where(x > 0, None, 1.0), "where: both values are needed, got None"),
        (lambda x: tg.full((2,), None), "full: fill_value must be one number; got NoneType"),
        (lambda x: tg.full((2,), [1, 2]), r"full: fill_value must be one number; got list"),
        (lambda x: FUNCTIONS.elu(x, "a"), "elu: alpha must be one real number; got str 'a'"),
        (lambda x: FUNCTIONS.elu(x, x), r"elu: alpha must be one real number; got shape \(2, 2\)"),
        (lambda x: tg.mean(x, dtype=tg.int32), "the dtype of a mean must be a floating one"),
    ],
)
def test_none_and_others_in_place_of_a_tensor(call: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises(DtypeError, match=text):
        call(tg.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x: FUNCTIONS.max(x, x),
            r"max: axis must be an integer; got a Tensor .* tg\.maximum\(x, y",
        ),
        (lambda x: x.min(x), r"tg\.minimum\(x, y\)"),
        (lambda x: x.sum(x), "sum: axis must be an integer; got a Tensor of shape"),
        (lambda x: FUNCTIONS.mean(x, axis="rows"), "mean: axis must be an integer; got 'rows'"),
        (lambda x: FUNCTIONS.sort(x, axis=1.0), "sort: axis must be an integer; got 1.0"),
        (
            lambda x: FUNCTIONS.gather(x, 1, tg.zeros((2, 1), dtype=tg.int64)),
            r"gather: axis must be an integer.* tg\.gather\(x, indices, \.\.\., axis=0\)",
        ),
    ],
)
def test_axes_that_are_none(call: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call(tg.ones((2, 2)))


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(OverflowError, match=r"add: .* 300 out of bounds for uint8; convert"):
        tg.tensor([1], dtype=tg.uint8) + 300
    with pytest.raises(ValueError, match=r"randint\(10, shape=\(3,\)\)"):
        FUNCTIONS.random.randint(10, (3,))
    with pytest.raises(ValueError, match="low and high must be integers"):
        FUNCTIONS.random.randint(0, 2.5, (3,))
    with pytest.raises(ValueError, match="num must be an integer from 0; got -2"):
        tg.linspace(0, 1, -2)
    with pytest.raises(ValueError, match="repetitions must be integers from 0"):
        tg.tile(tg.ones(2), (2, -1))


# --- memory ---------------------------------------------------------------------------------------


def read_only(kind: str) -> Tensor:
    a: Any = np.ones(3, np.float32)
    if kind == "broadcast":
        a = np.broadcast_to(a[:1], (3,))
    a.flags.writeable = False
    return Tensor(a, copy=None)


def stepped(make: Any) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> None:
        x.requires_grad = True
        optimizer = make([x])
        (x * 2.0).sum().backward()
        optimizer.step()

    return call


def compiled(executor: str) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> None:
        tg.compile(lambda y: x.copy_(x + y).sum(), executor=executor)(tg.ones(3))

    return call


@pytest.mark.parametrize("kind", ["broadcast", "protected"])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.__setitem__(0, 5.0),
        lambda x: x.__setitem__(slice(None), 5.0),
        lambda x: x.copy_(tg.zeros(3)),
        lambda x: x.__iadd__(1.0),
        stepped(lambda p: optim.SGD(p, lr=0.1)),
        stepped(lambda p: optim.Adam(p, lr=0.1)),
        *[compiled(executor) for executor in EXECUTORS],
    ],
)
def test_read_only_memory(write: Callable[[Tensor], Any], kind: str) -> None:
    x = read_only(kind)
    with pytest.raises(ValueError, match=r"read-only.* overwrite x\.clone\(\) instead") as caught:
        write(x)
    assert not isinstance(caught.value, tg.errors.ShapeError)
    assert x.detach().tolist() == [1, 1, 1]
    write(read_only(kind).clone())


def test_data_that_is_a_tensor() -> None:
    layer = nn.Linear(2, 2)
    new: Any = tg.ones((2, 2))
    layer.weight.data = new
    for use in (lambda: layer(tg.ones((1, 2))), lambda: repr(layer.weight), layer.weight.sum):
        with pytest.raises(TypeError, match=r"x\.copy_\(y\) under tg\.no_grad\(\)"):
            use()
    layer.weight.data = new.data
    assert layer(tg.zeros((1, 2))).shape == (1, 2)


# --- remedies -------------------------------------------------------------------------------------

_ARRAYS = (Tensor, np.ndarray, np.ma.MaskedArray, dict)
#: What stands before a dot in the messages, and what it is there.
NAMES: dict[str, tuple[Any, ...]] = {
    "tg": (tg,),
    "np": (np,),
    "nn": (nn,),
    "optim": (optim,),
    **dict.fromkeys("ytpgwzab", _ARRAYS),
    "x": (*_ARRAYS, SimpleNamespace(name="of any object")),
    "model": (nn.Module,),
    "module": (nn.Module,),
    "optimizer": (optim.Optimizer,),
}
#: How names of files end.
_ENDINGS = {"json", "npz", "csv", "py", "toml", "png", "pt", "safetensors", "gz"}


def texts(path: Path) -> Iterator[str]:
    """All texts of a file but its documentation; what is put into them is left out."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield "".join(str(p) for p in parts)
        elif isinstance(node, ast.Constant) and id(node) not in documentation | inside:
            yield str(node.value)


def exists(of: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(of, name):
            try:
                importlib.import_module(f"{of.__name__}.{name}")
            except (ImportError, AttributeError):
                return False
        of = getattr(of, name)
    return True


def remedies() -> list[tuple[str, str]]:
    path_of_names = r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    pattern = re.compile(rf"(?<![\w.'\"{{}}])({'|'.join(NAMES)})\.{path_of_names}")
    return sorted(
        {
            (str(path.relative_to(PACKAGE)), ".".join(found))
            for path in PACKAGE.rglob("*.py")
            for text in texts(path)
            if " " in text  # else it is code, or a name
            for found in pattern.findall(text)
        }
    )


@pytest.mark.parametrize(("path", "remedy"), remedies())
def test_what_messages_name_exists(path: str, remedy: str) -> None:
    of, *names = remedy.split(".")
    if names[-1] not in _ENDINGS:
        assert any(exists(kind, names) for kind in NAMES[of]), f"{remedy} in {path}"
