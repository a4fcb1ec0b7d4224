"""What a run is about: data of any kind as rows of numbers, and how they are made from files."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.cli import tables
from tensorgrad.cli.terminal import printable
from tensorgrad.data import (
    DataFileError,
    DatasetError,
    Subset,
    TensorDataset,
    digits,
    idx_folder,
    image_folder,
    image_list,
    random_split,
    read_npz,
)
from tensorgrad.data.datasets import Dataset
from tensorgrad.data.preparation import Column, expanded, fitted, recoded
from tensorgrad.data.spreadsheets import TABLES
from tensorgrad.data.transforms import Normalize
from tensorgrad.errors import TensorgradError
from tensorgrad.tensor import Tensor

Settings = Mapping[str, Any]
Array = np.ndarray[Any, Any]


class Raw(NamedTuple):
    """Examples as they are in the files."""

    inputs: Array  # [n, ...]
    targets: Array  # int64 [n] classes, or floats [n, k]
    classes: tuple[str, ...] | None  # their names; None if the targets are numbers
    features: tuple[str, ...] = ()  # of a table
    target: str | None = None  # of a table
    test: tuple[Array, Array] | None = None  # inputs and targets that come with it to test with
    columns: tuple[Column, ...] = ()  # of a table whose inputs are codes of them
    notes: tuple[str, ...] = ()  # what the person should know
    decimal: str | None = None  # the sign in the numbers of a table, if one shows


class Problem(NamedTuple):
    """What a network must know of the data it is for; saved with it, as JSON.

    Inputs are ``(raw - mean) / std``, as rows; targets that are numbers likewise.
    """

    name: str
    shape: list[int]  # of an input
    classes: list[str] | None
    features: list[str]
    mean: list[float]  # one number, or one for each element of an input
    std: list[float]
    target_mean: list[float]
    target_std: list[float]
    columns: list[list[Any]] = []  # noqa: RUF012 - each a ``Column``, where inputs are codes
    vocabulary: list[str] | None = None  # of a text: its characters in order; none if bytes
    decimal: str | None = None  # the sign in the numbers of a table, if one shows

    @property
    def is_text(self) -> bool:
        """Whether inputs are stretches of a text, and what is wanted is the token after each."""
        return self.vocabulary is not None

    @property
    def kind(self) -> str:
        """What an example is: a "row" of numbers, an "image", or a "text"."""
        if self.is_text:
            return "text"
        return "row" if len(self.shape) == 1 else "image"

    @property
    def inputs(self) -> int:
        """The number of elements of an input, as the network gets it."""
        return len(self.mean) if self.columns else math.prod(self.shape)

    @property
    def prepared(self) -> tuple[Column, ...]:
        """How the columns of a table become inputs; () where they are numbers as they are."""
        return tuple(
            Column(name, kind, fill, missing, tuple(levels), tuple(parts), order)
            for name, kind, fill, missing, levels, parts, order in self.columns
        )

    @property
    def input_names(self) -> list[str]:
        """Of the elements of an input, where it is a row of a table."""
        if not self.columns:
            return self.features
        return [name for column in self.prepared for name in column.inputs]

    @property
    def outputs(self) -> int:
        """The number of outputs that the network has."""
        if self.vocabulary is not None:
            return len(self.vocabulary) or 256
        return len(self.target_mean) if self.classes is None else max(2, len(self.classes))

    def preparation(self) -> list[dict[str, Any]]:
        """How each column of a table becomes inputs, in words for people."""
        scales = iter(zip(self.mean, self.std))
        found = []
        for column in self.prepared:
            inputs = [
                {"name": name, "mean": mean, "std": std}
                for name, (mean, std) in zip(column.inputs, scales)
            ]
            found.append({**column._asdict(), "inputs": inputs})
        return found

    def rows(self, raw: Array) -> Array:
        """Inputs as they are kept: [n, elements], float32, or uint8 where ``prepare`` scales them.

        Raises TensorgradError if they have another shape than those it was trained with, or are so
        far from them that float32 cannot hold them.
        """
        if list(raw.shape[1:]) != self.shape:
            raise TensorgradError(
                f"an input has shape {raw.shape[1:]}, but the network was trained on "
                f"{tuple(self.shape)}; take the same kind of data, and --image-size as then"
            )
        flat = raw.reshape(len(raw), -1)
        if self.columns:
            try:
                flat = expanded(self.prepared, flat)
            except ValueError as error:
                raise TensorgradError(str(error)) from error
        if flat.dtype == np.uint8 and self.only_scaled:
            return flat  # a quarter of the memory, and of the time to fetch a batch
        with np.errstate(over="ignore", invalid="ignore"):
            if self.only_scaled:
                found: Array = (flat * np.float32(1 / self.std[0])).astype(np.float32, copy=False)
            else:
                normalize = Normalize(self.mean, self.std)
                wide = normalize.apply(flat.astype(np.float64), np.random.default_rng(0))
                found = wide.astype(np.float32)
        if not np.isfinite(found).all():
            raise TensorgradError(
                "an input is no number, or so far from those the network was trained on that "
                "float32 cannot hold it once it is scaled; correct it"
            )
        return found

    @property
    def only_scaled(self) -> bool:
        """Whether inputs are divided by one number, as pixels are."""
        return len(self.std) == 1 and not any(self.mean) and len(self.shape) > 1

    def prepare(self) -> Callable[[Tensor], Tensor]:
        """From rows as they are kept to the input of the network, as a function of tensors."""
        scale = 1 / self.std[0]

        def scaled(rows: Tensor) -> Tensor:
            """Bytes as fractions; floats are scaled already."""
            return rows.astype("float32") * scale if str(rows.dtype) == "uint8" else rows

        return scaled

    def wanted(self, targets: Array) -> Array:
        """Targets as the network is to give them."""
        if self.classes is not None:
            return targets
        scaled = (targets - np.array(self.target_mean)) / np.array(self.target_std)
        return scaled.astype(np.float32)

    def given(self, outputs: Array) -> Array:
        """Numbers that the network predicts, in the units of the data."""
        return outputs * np.array(self.target_std) + np.array(self.target_mean)


class Data(NamedTuple):
    """What to train on: three parts, and what the network must know."""

    problem: Problem
    train: Subset
    validation: Subset
    test: Dataset
    whole: TensorDataset
    labels: Array | None  # of ``whole``, if they are classes
    notes: tuple[str, ...]  # what the person should know
    target: str | None  # the column of a table that it is about
    digest: str  # of all examples, and of how they are divided


def read(
    path: str | Path | None,
    settings: Settings,
    classes: tuple[str, ...] | None = None,
    problem: Problem | None = None,
) -> Raw:
    """The examples at ``path``, whatever kind of data it is; the embedded digits if None.

    classes: the names of the classes in their order, where they are known already; () where the
        targets are known to be numbers.
    problem: what a network was trained on; then features and target are looked up by name.

    Raises TensorgradError or OSError, naming the file, for anything that cannot be used.
    """
    if path is None:
        images, labels = digits()
        return Raw(images, labels, tuple("0123456789"))
    place = Path(path)
    raw = _read(place, settings, classes, problem)
    if not len(raw.inputs):
        raise TensorgradError(f"{place}: there are no examples; put some there")
    gaps = (raw.targets,) if raw.columns else (raw.inputs, raw.targets)
    _require_finite(place, *gaps, *(raw.test or ()))
    return raw


def _read(
    place: Path, settings: Settings, classes: tuple[str, ...] | None, problem: Problem | None
) -> Raw:
    size = settings["image_size"]
    pixels: dict[str, Any] = {
        "size": None if size is None else tuple(size),
        "grey": settings["grey"] if problem is None else len(problem.shape) == 2,
        "classes": classes or None,
    }
    if not place.exists():
        raise TensorgradError(f"{place}: there is no such file or folder")
    if place.is_dir():
        names = {entry.name for entry in place.iterdir()}
        if {"train", "test"} <= names:
            train = image_folder(place / "train", **pixels)
            test = image_folder(place / "test", **{**pixels, "classes": train.classes})
            return Raw(*train.load(), train.classes, test=test.load())
        if any("ubyte" in name for name in names):
            if size is not None or settings["grey"]:
                raise TensorgradError(
                    f"--{'grey' if size is None else 'image-size'} is for image files; {place} "
                    "holds IDX files"
                )
            return _idx(place, classes)
        if not any(entry.is_dir() for entry in place.iterdir()):
            raise TensorgradError(
                f"{place}: holds {', '.join(sorted(names)[:5]) or 'nothing'}, and no folders; put "
                "images into a folder for each class, as cat/1.png and dog/1.png, or give the "
                "four IDX files of MNIST or a relative"
            )
        folder = image_folder(place, **pixels)
        return Raw(*folder.load(), folder.classes)
    if place.suffix == ".npz":
        return _npz(place, classes)
    if place.suffix in TABLES:
        return _table(place, settings, classes, problem)
    if place.suffix in (".txt", ".list"):
        images_of = image_list(place, settings["image_root"], settings["label_pattern"], **pixels)
        return Raw(*images_of.load(), images_of.classes)
    raise TensorgradError(
        f"{place}: unknown kind of data; give a folder, or a file that ends in .npz, "
        f"{', '.join(TABLES)}, or .txt (a list of images)"
    )


def _require_finite(path: Path, *arrays: Array) -> None:
    """Refuse numbers that are none in float32, in which networks compute."""
    largest = np.finfo(np.float32).max
    for values in arrays:
        if values.dtype.kind != "f" or not values.size:
            continue
        least, most = values.min(), values.max()
        if not (least >= -largest and most <= largest):  # nor if they are NaN
            raise TensorgradError(
                f"{path}: all values must be numbers that float32 can hold (up to 3.4e38); got "
                f"{least:.4g} to {most:.4g}. Correct or scale them"
            )


def _idx(folder: Path, classes: tuple[str, ...] | None) -> Raw:
    found = idx_folder(folder)
    if found.train_images.shape[1:] != found.test_images.shape[1:]:
        raise TensorgradError(
            f"{folder}: training images have shape {found.train_images.shape[1:]} and test images "
            f"{found.test_images.shape[1:]}; take both from the same data set"
        )
    largest = int(max(found.train_labels.max(initial=0), found.test_labels.max(initial=0)))
    return Raw(
        found.train_images, found.train_labels, classes or _numbered(folder, largest),
        test=(found.test_images, found.test_labels),
    )  # fmt: skip


def _numbered(path: Path, largest: int) -> tuple[str, ...]:
    """Names for classes that are numbers from 0."""
    if largest >= _MOST_CLASSES:  # a network with an output for each would not fit into memory
        raise DataFileError(
            path,
            f"the largest label is {largest:,}, and a network has an output for each from 0 on, at "
            f"most {_MOST_CLASSES:,}",
            "number the classes from 0, or save floats if the labels are no classes",
        )
    return tuple(str(i) for i in range(max(largest, 1) + 1))


_MOST_CLASSES = 100_000
_INPUT_NAMES, _TARGET_NAMES = ("x", "inputs", "images", "data"), ("y", "t", "labels", "targets")


def arrays_of(path: Path) -> dict[str, Array]:
    """The arrays in an NPZ file by their names in small letters."""
    found = read_npz(path)
    arrays = {name.lower(): array for name, array in found.items()}
    if len(arrays) < len(found):
        raise DataFileError(
            path, f"names of arrays must differ in small letters; got {', '.join(found)}",
            "rename one",
        )  # fmt: skip
    return arrays


def _refuse_unfit(path: Path, x: Array, y: Array, classes: tuple[str, ...] | None) -> None:
    """Raise DataFileError for inputs and targets of an .npz file that nothing is trained on."""
    texts = y.dtype.kind in "US" and (y.ndim != 1 or classes == ())
    fits = x.ndim >= 2 and y.ndim in (1, 2) and len(x) == len(y) and not texts
    if not fits or x.dtype.kind not in "biuf":
        raise DataFileError(
            path,
            "x must hold numbers of shape (n, ...), and y numbers of shape (n,) or (n, k), or "
            f"names of classes (n,); got {x.dtype} {x.shape} and {y.dtype} {y.shape}",
            "save them so",
        )
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind != "f":
            continue
        if not (abs(values) <= np.finfo(np.float32).max).all():  # NaN is not
            raise DataFileError(
                path,
                f"{name} has values that are not finite, or above what float32 can hold (3.4e38)",
                "remove them, or scale the array",
            )


def _npz(path: Path, classes: tuple[str, ...] | None) -> Raw:
    arrays = arrays_of(path)

    def pick(names: tuple[str, ...], part: str) -> Array | None:
        """The array of the first of the names that is there."""
        for name in names:
            for key in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
                if key in arrays:
                    return arrays[key]
        return None

    inputs, targets = pick(_INPUT_NAMES, "train"), pick(_TARGET_NAMES, "train")
    test = pick(_INPUT_NAMES, "test"), pick(_TARGET_NAMES, "test")
    if inputs is None or targets is None:
        inputs, targets = pick(_INPUT_NAMES, ""), pick(_TARGET_NAMES, "")
    if inputs is None or targets is None:
        raise DataFileError(
            path,
            f"there must be arrays x and y (or x_train, y_train, x_test, y_test); it holds "
            f"{', '.join(arrays)}",
            "save them with numpy.savez(path, x=..., y=...)",
        )
    pairs = [(inputs, targets)]
    if test[0] is not None and test[1] is not None:
        pairs.append((test[0], test[1]))
    for x, y in pairs:
        _refuse_unfit(path, x, y, classes)
    if targets.dtype.kind in "US" and classes != ():
        order = classes or tuple(sorted(set(map(str, targets.tolist()))))
        number = {name: i for i, name in enumerate(order)}
        try:
            coded = [np.array([number[str(v)] for v in y.tolist()], np.int64) for _, y in pairs]
        except KeyError as error:
            raise DataFileError(
                path, f"{error} is none of the classes {', '.join(order)}", "correct it"
            ) from error
        classes = order
    elif targets.dtype.kind in "biu" and targets.ndim == 1 and classes != ():
        coded = [y.astype(np.int64) for _, y in pairs]
        classes = classes or _numbered(path, int(max(y.max(initial=0) for y in coded)))
    else:
        coded = [y.reshape(len(y), -1).astype(np.float64) for _, y in pairs]  # until scaled
        classes = None
    return Raw(inputs, coded[0], classes, test=(pairs[1][0], coded[1]) if len(pairs) > 1 else None)


def _table(
    path: Path, settings: Settings, classes: tuple[str, ...] | None, problem: Problem | None
) -> Raw:
    if problem is None:
        features, known = settings["features"], settings.get("columns", ())
        decimal = settings.get("decimal")
    else:
        features, known, decimal = problem.features, problem.prepared, problem.decimal
    complete = () if problem is None else tables.complete_of(known)
    found = tables.read(path, settings, classes, features, known, decimal, complete)
    return Raw(
        found.inputs, found.targets, found.classes, found.features, target=found.target,
        columns=found.columns, notes=found.notes, decimal=found.decimal,
    )  # fmt: skip


def _other_test(raw: Raw, settings: Settings) -> tuple[Array, Array]:
    """Inputs and targets of the data to test with, if they are like those to train on."""
    names = {
        "features": raw.features or settings["features"], "target": raw.target,
        "columns": raw.columns, "decimal": raw.decimal,
    }  # fmt: skip
    other = read(settings["test"], {**settings, **names}, raw.classes or ())
    if (raw.classes is None) != (other.classes is None):
        raise TensorgradError(
            f"{settings['test']}: the targets must be "
            f"{'numbers' if raw.classes is None else 'classes'}, as those to train on"
        )
    if other.inputs.shape[1:] != raw.inputs.shape[1:]:
        raise TensorgradError(
            f"{settings['test']}: inputs have shape {other.inputs.shape[1:]}, those to train "
            f"on {raw.inputs.shape[1:]}"
        )
    return other.inputs, other.targets


def load(settings: Settings, device: str) -> Data:
    """The data of a run in three parts that follow from the seed.

    A test part that comes with the data is used as it is; else as large a part as that for
    validation is put aside.

    Raises TensorgradError or OSError for what cannot be trained on.
    """
    path = settings["data"]
    raw = read(path, settings)
    test = raw.test if settings["test"] is None else _other_test(raw, settings)
    if test is not None and test[1].shape[1:] != raw.targets.shape[1:]:
        raise TensorgradError(
            f"{settings['test'] or path}: targets to test with have shape {test[1].shape[1:]}, "
            f"those to train on {raw.targets.shape[1:]}"
        )
    _check(path, raw, test)
    labels = None if raw.classes is None else raw.targets
    part = settings["validation_share"]
    if not part:
        raise TensorgradError("--validation-share must be above 0: early stopping needs a part")
    shares = [1 - 2 * part, part, part] if test is None else [1 - part, part]
    if shares[0] <= 0:
        raise TensorgradError(
            f"--validation-share {part} leaves nothing to train on, as as much is put aside to "
            "test with; take a smaller one"
        )
    positions = random_split(range(len(raw.inputs)), shares, settings["seed"], stratify=labels)
    if not all(len(p) for p in positions):
        raise TensorgradError(
            f"{path or 'digits'}: {len(raw.inputs)} examples are too few to be split into "
            f"{len(positions)} parts by --validation-share {part}"
        )
    problem = _problem(path, raw, positions[0].indices)
    divided = [raw.inputs, raw.targets, *(test or ()), *(p.indices for p in positions)]
    if raw.columns:
        raw = raw._replace(inputs=recoded(raw.inputs, raw.columns, problem.prepared))
        if test is not None:
            test = recoded(test[0], raw.columns, problem.prepared), test[1]
    whole = _dataset(problem, raw.inputs, raw.targets, device)
    parts = [Subset(whole, p.indices) for p in positions]
    return Data(
        problem,
        parts[0],
        parts[1],
        parts[2] if test is None else _dataset(problem, *test, device),
        whole,
        labels,
        (*raw.notes, *_unbalanced(raw)),
        raw.target,
        digest(divided),
    )


def _unbalanced(raw: Raw) -> list[str]:
    """A note, if always saying the most frequent class would look good."""
    if raw.classes is None:
        return []
    sizes = np.bincount(raw.targets, minlength=len(raw.classes))
    least, most = int(sizes[sizes > 0].min()), int(sizes.max())
    share = most / len(raw.targets)
    if share < 0.8 and most < 20 * least:
        return []
    return [
        f"classes are unbalanced: {least:,} of {raw.classes[int(np.where(sizes == least)[0][0])]}, "
        f"{most:,} of {raw.classes[int(sizes.argmax())]}, which alone gives an accuracy of "
        f"{math.floor(share * 1e4) / 100:g} %; look at --metrics f1,recall, and evaluate's "
        "confusion"
    ]


def digest(arrays: Sequence[Array]) -> str:
    """SHA-256 of arrays, with their dtypes and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


#: The settings that say where data is.
PLACES = ("data", "test", "image_root")


def grey_of(settings: Settings, shape: Sequence[int]) -> bool | None:
    """The setting ``grey`` as it was saved with a run on inputs of this shape.

    False once meant what None does now, images as they are; all in colours have three axes.
    """
    grey: bool | None = settings["grey"]
    return None if grey is False and len(shape) == 2 else grey


def located(settings: Settings, folder: Path) -> dict[str, str]:
    """Where the data of the run in ``folder`` is now, for the settings that were saved with it.

    First where it was; then at the same place seen from the run, which may have been moved or
    copied together with it; else what the settings say, seen from the current folder.
    """
    base = settings.get("base", os.curdir)  # the folder in which the run was begun
    found = {}
    for name in PLACES:
        given = settings[name]
        if given is None:
            continue
        there = os.path.abspath(os.path.join(base, given))
        run = os.path.abspath(os.path.join(base, settings["out"] or folder))
        beside = os.path.normpath(os.path.join(folder, os.path.relpath(there, run)))
        places = [there, beside, given]
        place = next((place for place in places if os.path.exists(place)), given)
        found[name] = given if os.path.abspath(given) == place else place
    return found


def expect(
    data: Data, problem: Problem, saved: Settings, run: str | Path, place: str | None
) -> Data:
    """``data``, by the name it had when the run ``run`` was begun.

    problem, saved: what the run was about, and the rest of what was saved with it. place: where
    the data was found.

    Raises TensorgradError if it is not what the run was trained on.
    """
    own = data._replace(problem=data.problem._replace(name=problem.name))
    if problem.decimal is None:  # as in a run that was saved before this was kept
        own = own._replace(problem=own.problem._replace(decimal=None))
    if own.problem != problem or own.digest != saved.get("digest", own.digest):
        raise TensorgradError(
            f"the data at {place or '(the digits)'} is not what {run} was trained on; put it back, "
            "or name it with --data. If it is the same, this version of tensorgrad divides it into "
            "other parts: take the version that began the run"
        )
    return own


def _check(path: str | None, raw: Raw, test: tuple[Array, Array] | None) -> None:
    """Refuse what could be read but not trained on."""
    if not math.prod(raw.inputs.shape[1:]):
        raise TensorgradError(
            f"{path}: inputs must have an element at least; got shape {raw.inputs.shape}"
        )
    for inputs, targets in ((raw.inputs, raw.targets), *([test] if test else [])):
        if (len(inputs) < 2 and inputs is raw.inputs) or not len(inputs):
            raise TensorgradError(
                f"{path}: there must be two training images or other examples at least, and one to "
                f"test with; got {len(inputs)}"
            )
        if raw.classes is not None:
            least, most = int(targets.min()), int(targets.max())
            if least < 0 or most >= len(raw.classes):
                raise TensorgradError(
                    f"{path}: no label may be below 0 or above {len(raw.classes) - 1}; got "
                    f"{least} to {most}"
                )
    if raw.classes is not None and raw.targets.min() == raw.targets.max():
        only = raw.classes[int(raw.targets[0])]
        raise TensorgradError(
            f"{path}: all {len(raw.targets)} examples are of one class, {only!r}; there is nothing "
            "to tell apart. Add examples of another"
        )
    if raw.classes is None:
        if (raw.targets == raw.targets[0]).all():
            raise TensorgradError(
                f"{path}: the target is {raw.targets[0, 0]:g} in all {len(raw.targets)} examples; "
                "there is nothing to predict. Add others, or take another target"
            )
        return
    there = len(np.unique(raw.targets))
    if there > 2 and there * 2 > len(raw.targets):
        raise TensorgradError(
            f"{path}: {len(raw.targets)} examples are of {there} classes, as "
            f"{raw.classes[int(raw.targets[0])][:20]!r}; there must be two of each on average. Add "
            "examples; if the classes are numbers, write them without signs and units"
        )


def _problem(path: str | None, raw: Raw, train: Array) -> Problem:
    """What the network must know: scales are those of the training part."""
    pixels = raw.inputs.dtype.kind in "u" or raw.inputs.ndim > 2
    columns = fitted(raw.columns, raw.inputs[train])
    if columns:
        codes = recoded(raw.inputs[train], raw.columns, columns)
        normalize = Normalize.of(expanded(columns, codes))
        mean, std = normalize.mean, normalize.std
    elif pixels:
        mean, std = np.zeros(1), np.array([float(max(raw.inputs.max(), 1))])
    else:
        normalize = Normalize.of(raw.inputs[train].reshape(len(train), -1))
        mean, std = normalize.mean, normalize.std
    target_mean, target_std = np.zeros(0), np.zeros(0)
    if raw.classes is None:
        scale = Normalize.of(raw.targets[train])
        target_mean, target_std = scale.mean, scale.std
    name = "digits" if path is None else printable(Path(path).resolve().stem) or "data"
    return Problem(
        name,
        list(raw.inputs.shape[1:]),
        None if raw.classes is None else list(raw.classes),
        list(raw.features),
        mean.tolist(),
        std.tolist(),
        target_mean.tolist(),
        target_std.tolist(),
        [[*c[:4], list(c.levels), list(c.parts), c.order] for c in columns],
        decimal=raw.decimal,
    )


def _dataset(problem: Problem, inputs: Array, targets: Array, device: str) -> TensorDataset:
    """Rows and targets, in the memory of the device that will use them."""
    return TensorDataset(
        Tensor(problem.rows(inputs), device=device, copy=None),
        Tensor(problem.wanted(targets), device=device, copy=None),
    )


def dataset_of(problem: Problem, raw: Raw, device: str) -> TensorDataset:
    """Other examples, for a network that was trained on ``problem``.

    Raises DatasetError if they are of another kind.
    """
    if (raw.classes is None) != (problem.classes is None):
        raise DatasetError("the data has classes where the network predicts numbers, or vice versa")
    return _dataset(problem, raw.inputs, raw.targets, device)
