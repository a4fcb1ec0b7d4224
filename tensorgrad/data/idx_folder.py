"""MNIST and its relatives: four IDX files in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from tensorgrad.data.datasets import DatasetError
from tensorgrad.data.idx import IdxError, read_idx


class IdxFolder(NamedTuple):
    """The four arrays of a folder of IDX files: images [n, ...] and labels int64 [n]."""

    train_images: ndarray[Any, Any]
    train_labels: ndarray[Any, Any]
    test_images: ndarray[Any, Any]
    test_labels: ndarray[Any, Any]


def idx_folder(path: str | os.PathLike[str]) -> IdxFolder:
    """The images and labels of MNIST, or of any data set that comes in its four files.

    path: a folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each also with a dot in place
        of the last-but-one hyphen (``train-images.idx3-ubyte``) and with ``.gz`` behind it.

    Images keep the type in the file (uint8 for MNIST, 0 to 255); labels become int64.

    Raises DatasetError naming all files that are missing, or counts that do not fit each other;
    IdxError for a damaged file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}; give "
            "the folder that holds the four IDX files, as train-images-idx3-ubyte.gz"
        )
    stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    found = [_find(folder, stem) for stem in stems]
    files = [file for file in found if file is not None]
    if len(files) < len(stems):
        missing = [f"{s}-{_suffix(s)}[.gz]" for s, f in zip(stems, found, strict=True) if not f]
        there = sorted(entry.name for entry in folder.iterdir())[:8]
        raise DatasetError(
            f"{folder}: missing {', '.join(missing)}; put them there. The folder holds "
            f"{', '.join(there) or 'nothing'}"
        )
    arrays: list[ndarray[Any, Any]] = []
    for images, labels in zip(files[::2], files[1::2], strict=True):
        arrays += _pair(images, labels)
    return IdxFolder(*arrays)


def _suffix(stem: str) -> str:
    return "idx3-ubyte" if stem.endswith("images") else "idx1-ubyte"


def _find(folder: Path, stem: str) -> Path | None:
    """The file of this name, in one of the forms in which it is distributed."""
    for separator in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stem}{separator}{_suffix(stem)}{ending}"
            if path.is_file():
                return path
    return None


def _pair(image_file: Path, label_file: Path) -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
    """The images and labels in two files, checked against each other."""
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim < 2:
        raise IdxError(
            image_file,
            f"images must have an axis for the examples and at least one more; got {images.shape}",
            "check that images and labels are not mixed up",
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise IdxError(
            label_file,
            f"labels must be integers of shape (n,); got {labels.dtype} of shape {labels.shape}",
            "check that images and labels are not mixed up",
        )
    if len(images) != len(labels):
        raise DatasetError(
            f"{image_file} holds {len(images):,} images but {label_file} {len(labels):,} labels; "
            "take both from the same data set"
        )
    return images, labels.astype(np.int64)
