"""Checkpoints: any nested state in one safetensors file that is either whole or refused.

Tensors and arrays lie in the file under their path in the state ("model.0.weight"), where every
safetensors reader finds them. Everything else (numbers, texts, what is nested in what) is JSON in
the metadata, beside the configuration, the versions and a checksum over all of it. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tensorgrad.backend import is_array
from tensorgrad.errors import TensorgradError
from tensorgrad.files import write_atomically
from tensorgrad.nn.arrays import file_array, host_array
from tensorgrad.tensor import Tensor

_FORMAT = 1
_ENTRY = "tensorgrad"  # one entry only: the order of several would differ from run to run
_MARK = "$"  # the key of a JSON object that stands for something JSON has no word for


class CheckpointError(TensorgradError, ValueError):
    """A checkpoint cannot be written or read, or does not fit what it is loaded into."""


class LoadedCheckpoint(NamedTuple):
    """What ``load_checkpoint`` returns."""

    state: dict[str, Any]  #: what was saved; tensors on the CPU
    config: dict[str, Any]  #: the configuration saved with it
    versions: dict[str, str]  #: of Python, NumPy and tensorgrad when it was saved


def versions() -> dict[str, str]:
    """The versions that a result may depend on: of Python, NumPy and tensorgrad."""
    from tensorgrad import __version__

    return {"tensorgrad": __version__, "numpy": np.__version__, "python": platform.python_version()}


def save_checkpoint(
    path: str | os.PathLike[str],
    state: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write ``state`` to the file ``path``, in one step: an interruption leaves the old file.

    state: dicts, lists and tuples, nested at will, of tensors, arrays, numbers, texts and None.
    config: what the reader should know of how the state came about, of the same kinds.

    Raises CheckpointError for anything else in the state, DtypeError for an array of a dtype that
    tensors do not have, OSError if the file cannot be written.
    """
    arrays: dict[str, ndarray[Any, Any]] = {}
    document = {
        "format": _FORMAT,
        "state": _pack(dict(state), "", arrays),
        "config": _pack(dict(config or {}), "config", arrays),
        "versions": versions(),
    }
    document["sha256"] = _checksum(document, arrays)
    write_atomically(path, save(arrays, metadata={_ENTRY: json.dumps(document)}))


def load_checkpoint(path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """What ``save_checkpoint`` wrote to the file ``path``: the state, bit by bit.

    Raises OSError if the file cannot be read, and CheckpointError if it is torn, altered, or not
    a checkpoint of tensorgrad.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        found = deserialize(content)  # type: ignore[no-untyped-call]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: torn, or not a safetensors file ({error}); take another checkpoint, or train "
            "again"
        ) from error
    text = header.get("__metadata__", {}).get(_ENTRY)
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of tensorgrad; read its arrays with "
            "safetensors.numpy.load_file"
        )
    altered = CheckpointError(
        f"{path}: its content does not match its checksum, so it was altered or damaged; take "
        "another checkpoint, or train again"
    )
    try:
        arrays = {name: file_array(view) for name, view in found}
        document = json.loads(text)
        checksum = document.pop("sha256")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise altered from error
    if document.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: written in format {document.get('format')!r}; this version of tensorgrad "
            f"reads format {_FORMAT}. Read it with the version that wrote it: "
            f"{document.get('versions')}"
        )
    if checksum != _checksum(document, arrays):
        raise altered
    return LoadedCheckpoint(
        _unpack(document["state"], arrays),
        _unpack(document["config"], arrays),
        document["versions"],
    )


def older(path: str | os.PathLike[str], number: int) -> Path:
    """The file of the checkpoint ``number`` saves before the newest, which is ``path``."""
    path = Path(path)
    return path.with_suffix(f".{number}{path.suffix}") if number else path


def load_newest(path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """The newest whole checkpoint of those that ``Checkpointing`` keeps under ``path``.

    If the newest is damaged or missing, those before it are tried; a warning says which is used.

    Raises CheckpointError if none is whole, with what is wrong with each; FileNotFoundError if
    there is none at all.
    """
    problems: list[str] = []
    number = 0
    while True:
        candidate = older(path, number)
        if not candidate.exists() and number:
            break
        number += 1
        try:
            found = load_checkpoint(candidate)
        except CheckpointError as error:
            problems.append(str(error))
        except FileNotFoundError:
            problems.append(f"{candidate}: missing")
        else:
            if problems:
                warnings.warn(
                    f"{'; '.join(problems)}. Going on from the one before, {candidate}",
                    stacklevel=2,
                )
            return found
    if number == 1 and not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    raise CheckpointError("no checkpoint is whole: " + "; ".join(problems))


def _checksum(document: Mapping[str, Any], arrays: Mapping[str, ndarray[Any, Any]]) -> str:
    """SHA-256 of the document and of every array with its name, dtype and shape."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.name} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _pack(value: Any, path: str, arrays: dict[str, ndarray[Any, Any]]) -> Any:
    """``value`` as JSON, with the arrays in it moved to ``arrays`` under their paths."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) or is_array(value):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        array = value.data if isinstance(value, Tensor) else value
        name = path
        while name in arrays:
            name += "_"
        arrays[name] = host_array(array)
        return {_MARK: kind, "name": name}
    if isinstance(value, list):
        return _pack_all(value, path, arrays)
    if isinstance(value, tuple):
        return {_MARK: "tuple", "items": _pack_all(value, path, arrays)}
    if isinstance(value, Mapping):
        keys = list(value)
        items = [_pack(value[key], f"{path}.{key}".lstrip("."), arrays) for key in keys]
        if all(type(key) is str for key in keys) and _MARK not in keys:
            return dict(zip(keys, items, strict=True))
        pairs = zip(keys, items, strict=True)
        return {_MARK: "dict", "items": [[_pack(k, path, arrays), v] for k, v in pairs]}
    raise CheckpointError(
        f"a checkpoint holds tensors, arrays, numbers, texts, and dicts, lists and tuples of them; "
        f"{path or 'the state'} is a {type(value).__name__}. Save what it consists of"
    )


def _pack_all(values: Any, path: str, arrays: dict[str, ndarray[Any, Any]]) -> list[Any]:
    return [_pack(value, f"{path}.{i}", arrays) for i, value in enumerate(values)]


def _unpack(value: Any, arrays: Mapping[str, ndarray[Any, Any]]) -> Any:
    """The reverse of ``_pack``."""
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_MARK)
    if kind is None:
        return {key: _unpack(item, arrays) for key, item in value.items()}
    if kind == "tensor":
        return Tensor(arrays[value["name"]], device="cpu", copy=None)
    if kind == "array":
        return arrays[value["name"]]
    items = _unpack(value["items"], arrays)
    return tuple(items) if kind == "tuple" else dict(items)
