"""Examples of every structure: dicts, named tuples, nested, texts; and what is none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from standin import cupy_standin

from tensorgrad import nn
from tensorgrad.data import ConcatDataset, DataLoader, DatasetError, Subset, transforms
from tensorgrad.errors import ShapeError, TensorgradError
from tensorgrad.nn import functional
from tensorgrad.optim import SGD
from tensorgrad.tensor import Tensor
from tensorgrad.training import Trainer


class Pair(NamedTuple):
    """An example with names."""

    x: Any
    label: Any


class Made:
    """Examples that a function makes of their numbers."""

    def __init__(self, make: Callable[[int], Any], n: int = 5) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def plain(value: Any) -> Any:
    """A batch with lists in place of tensors, each with its dtype."""
    if isinstance(value, Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, Pair):
        return Pair(*map(plain, value))
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value


def row(i: int) -> Any:
    return np.full(2, i, np.float32)


ROWS = ("float32", [[0.0, 0.0], [1.0, 1.0]])
LABELS = ("int64", [0, 1])
KINDS: dict[str, tuple[Callable[[int], Any], Any]] = {
    "dict": (lambda i: {"x": row(i), "y": i}, {"x": ROWS, "y": LABELS}),
    "other mapping": (lambda i: OrderedDict(x=row(i), y=i), {"x": ROWS, "y": LABELS}),
    "named tuple": (lambda i: Pair(row(i), i), Pair(ROWS, LABELS)),
    "tuple": (lambda i: (row(i), i), (ROWS, LABELS)),
    "list": (lambda i: [row(i), i], (ROWS, LABELS)),
    "array": (row, (ROWS,)),
    "number": (lambda i: i, (LABELS,)),
    "bool": (lambda i: i > 0, (("bool", [False, True]),)),
    "text": (lambda i: f"t{i}", (["t0", "t1"],)),
    "bytes": (lambda i: b"%d" % i, ([b"0", b"1"],)),
    "texts beside arrays": (lambda i: (row(i), f"t{i}"), (ROWS, ["t0", "t1"])),
    "numbers in a list": (lambda i: ([float(i), float(i)], i), (ROWS, LABELS)),
    "numbers in a tuple": (lambda i: ((float(i), float(i)), i), (ROWS, LABELS)),
    "numbers in lists": (
        lambda i: ([[i], [i]], i), (("int64", [[[0], [0]], [[1], [1]]]), LABELS)
    ),
    "nested": (
        lambda i: ((row(i), [row(i), i]), {"a": {"b": i, "c": f"{i}"}}),
        ((ROWS, (ROWS, LABELS)), {"a": {"b": LABELS, "c": ["0", "1"]}}),
    ),
    "names in a dict": (lambda i: {"p": Pair(row(i), i)}, {"p": Pair(ROWS, LABELS)}),
    "tensors": (lambda i: {"x": Tensor(row(i))}, {"x": ROWS}),
    "numbers as keys": (lambda i: {0: row(i), (1, 2): i}, {0: ROWS, (1, 2): LABELS}),
}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("make", "expected"), KINDS.values(), ids=KINDS)
def test_a_batch_has_the_structure_of_an_example(
    make: Callable[[int], Any], expected: Any, workers: int
) -> None:
    """With arrays stacked and texts in lists, whoever fetches them; also through a Subset."""
    first, second, last = DataLoader(Made(make), 2, workers=workers)
    assert plain(first) == expected
    assert type(second) is type(first)
    for x in (last, *DataLoader(Subset(Made(make), [4]))):
        assert plain(x) != expected
        assert type(x) is type(first)


@pytest.mark.parametrize(("make", "expected"), KINDS.values(), ids=KINDS)
def test_several_data_sets_in_a_row(make: Callable[[int], Any], expected: Any) -> None:
    """Their examples are put together part by part."""
    joined = ConcatDataset(Made(lambda i: make(i + 1), 1), Made(make, 1), Made(make, 2))
    (batch,) = DataLoader(Subset(joined, [1, 0]), 2)
    assert plain(batch) == expected
    (batch,) = DataLoader(Subset(joined, [2, 3]), 2)
    assert plain(batch) == expected


@pytest.mark.parametrize(("make", "expected"), KINDS.values(), ids=KINDS)
def test_on_the_way_to_a_gpu(make: Callable[[int], Any], expected: Any) -> None:
    """Arrays are sent, the structure is kept, and texts stay with the host."""
    with cupy_standin.installed():
        for prefetch in (0, 1, 3):
            found = list(DataLoader(Made(make, 6), 2, device="cuda", prefetch=prefetch))
            assert len(found) == 3
            assert plain(found[0]) == expected
            assert type(found[2]) is type(found[0])


NONE: dict[str, tuple[Callable[[int], Any], str]] = {
    "None": (lambda i: None if i == 2 else row(i), r"example 2.* is None\. An example is a tensor"),
    "None within": (lambda i: (row(i), None if i == 3 else i), r"example 3 at \[1\] is None"),
    "None in a dict": (lambda i: {"x": {"y": None}}, r"example 0 at \['x'\]\['y'\] is None"),
    "an object": (lambda i: (row(i), object()), r"example 0 at \[1\] is a object, which is no arr"),
    "a set": (lambda i: {1, i}, r"example 0 .*is a set"),
    "other keys": (
        lambda i: {"x": i} if i < 3 else {"y": i},
        r"example 2 is a dict of 'x' and example 3 a dict of 'y'",
    ),
    "a dict among tuples": (
        lambda i: {"x": i} if i == 1 else (i,), r"example 0 is a tuple of 1 and example 1 a dict",
    ),
    "other lengths": (
        lambda i: (row(i),) * (1 + i % 2), r"example 0 is a tuple of 1 and example 1 a tuple of 2",
    ),
    "a text among numbers": (lambda i: (i, "1" if i == 1 else 1), r"example 1 at \[1\] is a str"),
    "a number among texts": (
        lambda i: {"n": 1 if i == 1 else "1"}, r"at \['n'\] is a str and example 1 a int",
    ),
    "an array among tuples": (
        lambda i: row(i) if i == 1 else (row(i),), r"example 0 is a tuple .*example 1 a ndarray",
    ),
    "ragged": (lambda i: ([[1], [1, 2]], i), r"example 0 at \[0\] is a list, which is no array"),
}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("make", "message"), NONE.values(), ids=NONE)
def test_what_is_no_example(make: Callable[[int], Any], message: str, workers: int) -> None:
    """The example and the part are named, and what an example may be."""
    with pytest.raises(DatasetError, match=message):
        list(DataLoader(Made(make), 2, workers=workers))


def test_shapes_that_differ() -> None:
    """In which part."""
    with pytest.raises(ShapeError, match=r"\(1,\).*\(2,\) float64 in part \['x'\]\[0\]"):
        list(DataLoader(Made(lambda i: {"x": (np.zeros(i + 1), i)}), 2))
    unlike = ConcatDataset(Made(lambda i: {"x": i}), Made(lambda i: {"y": i}))
    with pytest.raises(ShapeError, match="must consist of the same parts"):
        list(DataLoader(unlike, 10))


@pytest.mark.parametrize("found", [np.zeros((2, 3)), None, 5])
def test_take_returns_the_parts_of_a_batch(found: Any) -> None:
    """Anything else would be taken apart by rows."""

    class Whole(Made):
        def take(self, indices: Any) -> Any:
            return found

    with pytest.raises(DatasetError, match=r"Whole\.take\(\) must return the parts of a batch"):
        list(DataLoader(Whole(row), 2))


def test_transforms_of_dicts_and_names() -> None:
    """A part by its key; functions are given a dict as it is, and may return one."""
    halved = transforms.Normalize(0.0, 2.0, part="x")
    (batch,) = DataLoader(Made(lambda i: {"x": row(i), "y": i}, 2), 2, transform=halved)
    assert plain(batch) == {"x": ("float32", [[0, 0], [0.5, 0.5]]), "y": LABELS}
    named = transforms.Normalize(0.0, 2.0)
    (pair,) = DataLoader(Made(lambda i: Pair(row(i), i), 2), 2, transform=named)
    assert isinstance(pair, Pair)
    assert pair.x.tolist() == [[0, 0], [0.5, 0.5]]
    steps = transforms.Compose(halved, lambda batch: {**batch, "z": batch["x"] * 2})
    (batch,) = DataLoader(Made(lambda i: {"x": row(i)}, 2), 2, transform=steps)
    assert batch["z"].tolist() == ROWS[1]
    for wrong, parts in ((0, "'x'"), ("y", "'x'")):
        bad = transforms.Normalize(0.0, 2.0, part=wrong)
        with pytest.raises(TensorgradError, match=f"has the parts {parts}, but part={wrong!r}"):
            list(DataLoader(Made(lambda i: {"x": row(i)}), 2, transform=bad))
    with pytest.raises(TensorgradError, match="has the parts 0, 1, but part=2"):
        list(DataLoader(Made(lambda i: (row(i), i)), transform=transforms.Normalize(0, 1, part=2)))


def test_training_wants_tuples() -> None:
    """A Trainer refuses dicts, and names the transform that helps."""
    model = nn.Linear(2, 2)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), functional.cross_entropy)
    data = Made(lambda i: {"x": row(i), "y": i % 2}, 6)
    for use in (lambda loader: trainer.fit(loader, epochs=1), trainer.evaluate):
        with pytest.raises(TensorgradError, match=r"transform=lambda batch: \(batch\['x'\], batch"):
            use(DataLoader(data, 3))
    loader = DataLoader(data, 3, transform=lambda batch: (batch["x"], batch["y"]))
    assert len(trainer.fit(loader, epochs=1)) == 1
    assert len(trainer.fit(DataLoader(Made(lambda i: Pair(row(i), i % 2), 6), 3), epochs=2)) == 2
