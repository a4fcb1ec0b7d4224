"""Text as data: a file or a folder of files as numbers, and windows of them to learn from."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.cli import data as arrays
from tensorgrad.cli.data import Data, Problem
from tensorgrad.cli.settings import BY_NAME
from tensorgrad.cli.terminal import printable
from tensorgrad.data import DataFileError, Subset, TensorDataset
from tensorgrad.data.datasets import Dataset
from tensorgrad.data.images import SUFFIXES
from tensorgrad.errors import TensorgradError
from tensorgrad.files import read_utf8, read_whole
from tensorgrad.ops.random import Generator

Settings = Mapping[str, Any]
Array = np.ndarray[Any, Any]

#: Networks that are for text alone.
TEXT_MODELS = ("rnn", "lstm", "gru", "transformer")
#: What a run on text takes where nothing is chosen.
_DEFAULTS = {"tokens": "characters", "context": 64, "validation_share": 0.05}
_NOT_FOR_TEXT = (
    "image_size",
    "grey",
    "image_root",
    "label_pattern",
    "target",
    "features",
    "task",
    "refit",
)
_AN_IMAGE = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})(\s*$|[\s,])", re.IGNORECASE)


def is_text(settings: Settings) -> bool:
    """Whether the data is text: a .txt file that is no list of images, or a folder of such."""
    path = settings["data"]
    if path is None:
        return False
    place = Path(path)
    if place.is_dir():
        return bool(_files(place)) and not any(
            entry.is_dir() and entry.name[0] != "." for entry in place.iterdir()
        )
    if place.suffix != ".txt" or settings["image_root"] or settings["label_pattern"]:
        return False
    if settings["tokens"] is not None or settings["model"] in TEXT_MODELS:
        return True
    return place.is_file() and not _lists_images(place)


def _lists_images(path: Path) -> bool:
    """Whether the first line that says something begins with the name of an image."""
    for row in read_whole(path).splitlines():
        text = row.decode("utf-8", "replace").strip("\ufeff \t")
        if text and text[0] != "#":
            return _AN_IMAGE.search(text) is not None
    return True  # there is nothing: an empty list is refused by name


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix == ".txt" and p.name[0] != ".")


def prefer(settings: dict[str, Any], chosen: Collection[str]) -> None:
    """Set what a run on text takes where nothing is chosen; refuse options that are for others."""
    if not is_text(settings):
        for name in ("tokens", "context"):
            if settings[name] is not None:
                raise TensorgradError(
                    f"{BY_NAME[name].flag} is for text, a .txt file or a folder of such; got "
                    f"--data {settings['data'] or '(the digits)'}"
                )
        return
    for name in _NOT_FOR_TEXT:
        if settings[name] not in (None, False):
            raise TensorgradError(f"{BY_NAME[name].flag} is not for text as {settings['data']}")
    if settings["batch_size"] == "full":
        raise TensorgradError("--batch-size full is not for text; give a number")
    settings.update({name: v for name, v in _DEFAULTS.items() if name not in chosen})


class Windows:
    """A text as examples: stretches of ``context`` tokens, and for each token the one after it.

    tokens: integers [n]. Example i begins at token i.
    """

    def __init__(self, tokens: Array, context: int) -> None:
        self.tokens = tokens
        self.context = context

    def __len__(self) -> int:
        return len(self.tokens) - self.context

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        x, y = self.take(np.array([index]))
        return x[0], y[0]

    def take(self, indices: Any) -> tuple[Array, Array]:
        """Tokens and those after them, int64 [n, context] each."""
        places = np.asarray(indices, np.int64)[:, None] + np.arange(self.context + 1)
        found = self.tokens[places].astype(np.int64)
        return found[:, :-1], found[:, 1:]

    def one_after_another(self) -> Subset:
        """The examples that follow upon each other."""
        return Subset(self, np.arange(0, len(self), self.context))


def windows_of(part: Dataset) -> Windows | None:
    """The text that examples come from, if they do."""
    found = part.dataset if isinstance(part, Subset) else None
    return found if isinstance(found, Windows) else None


class Shifted:
    """Goes through a text once in an epoch: in stretches that follow upon each other, shuffled.

    Where the first begins is drawn anew in each epoch, so that borders are not always the same.
    """

    def __init__(self, windows: Windows) -> None:
        self.examples = len(windows)
        self.context = windows.context

    def __len__(self) -> int:
        return max(1, self.examples // self.context)

    def order(self, generator: Generator) -> Array:
        """Where the stretches begin, drawn from ``generator``."""
        free = self.examples - (len(self) - 1) * self.context
        drawn = generator.permutation(free, device="cpu").data
        order: Array = generator.permutation(len(self), device="cpu").data * self.context
        return order + drawn[0]


def load(settings: Settings, device: str) -> Data:
    """The data of a run in three parts, of any kind; those of a text are by position.

    Raises TensorgradError or OSError for what cannot be trained on.
    """
    if not is_text(settings):
        return arrays.load(settings, device)
    path = Path(settings["data"])
    text = read_text(path, settings["tokens"])
    vocabulary = sorted(set(text)) if isinstance(text, str) else []
    name = printable(path.resolve().stem) or "text"
    context = settings["context"]
    problem = Problem(name, [context], None, [], [], [], [], [], vocabulary=vocabulary)
    tokens = encoded(problem, text, path)
    share = settings["validation_share"]
    test = None
    if settings["test"] is not None:
        other = Path(settings["test"])
        test = encoded(problem, read_text(other, settings["tokens"]), other)
    if not 0 < share < 0.5:
        raise TensorgradError("--validation-share of a text must be above 0 and below 0.5")
    size = round(share * len(tokens))
    ends = [len(tokens) - (size if test is not None else 2 * size)]
    ends += [ends[0] + size]
    parts = [tokens[: ends[0]], tokens[ends[0] : ends[1]]]
    parts.append(tokens[ends[1] :] if test is None else test)
    if min(map(len, parts)) <= context:
        raise TensorgradError(
            f"{path}: {len(tokens):,} {settings['tokens']} are too few to learn from stretches of "
            f"{context} and to put {share:g} of them aside; give more text, a smaller --context, "
            "or a larger --validation-share"
        )
    train, validation, last = (Windows(part, context).one_after_another() for part in parts)
    return Data(
        problem, train, validation, last, TensorDataset(tokens), labels=None, notes=(),
        target=None, digest=arrays.digest(parts),
    )  # fmt: skip


def read_text(
    path: Path, tokens: str, remedy: str = "save it so, or take --tokens bytes"
) -> str | bytes:
    """A file, or the .txt files in a folder one after another: a text, or bytes.

    Raises OSError if there is none, DataFileError, with the remedy, for characters that are not
    UTF-8.
    """
    if not path.exists():
        raise TensorgradError(f"{path}: there is no such file or folder")
    found = []
    for file in _files(path) if path.is_dir() else [path]:
        if tokens == "bytes":
            found.append(read_whole(file))
        else:
            found.append(read_utf8(file, remedy).replace("\r\n", "\n").encode())
    whole = b"\n".join(found)
    return whole if tokens == "bytes" else whole.decode()


def encoded(problem: Problem, text: str | bytes, path: str | os.PathLike[str]) -> Array:
    """The tokens of a text, integers [n].

    Raises DataFileError for characters that the network does not know; ``path`` says whose.
    """
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    known = problem.vocabulary or []
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.array([ord(c) for c in known], np.uint32)  # in order
    found = np.searchsorted(table, points).clip(max=max(len(table) - 1, 0))
    wrong = points[table[found] != points] if len(table) else points
    if len(wrong):
        raise DataFileError(
            path,
            f"holds {chr(wrong[0])!r}, which is not among the {len(known)} characters that the "
            "network was trained on",
            "replace it, or train on a text that has it",
        )
    return found.astype(np.uint8 if len(known) <= 256 else np.uint32)


def decoded(problem: Problem, tokens: Array) -> str:
    """The text that tokens stand for; bytes that are no UTF-8 become U+FFFD."""
    if not problem.vocabulary:
        return tokens.astype(np.uint8).tobytes().decode("utf-8", "replace")
    return "".join(problem.vocabulary[k] for k in tokens.tolist())


def figures(problem: Problem, loss: float, part: Dataset) -> dict[str, float]:
    """Bits a character and perplexity, of a mean loss in nats a token.

    part: the examples that it is of. The perplexity is that of tokens.
    """
    windows = windows_of(part)
    each = 1.0
    if windows is not None and not problem.vocabulary:
        # In UTF-8 each character has one byte that does not begin with 10.
        each = len(windows.tokens) / max(1, int(((windows.tokens & 0xC0) != 0x80).sum()))
    bits = loss / math.log(2)
    found = {"bits_per_character": bits * each, "perplexity": math.exp(min(loss, 700.0))}
    return found if problem.vocabulary else {"bits_per_byte": bits, **found}
