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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from safetensors.numpy import save

from tensorgrad.backend import is_array
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError, write_atomically
from tensorgrad.nn.arrays import METADATA, host_array, read_safetensors
from tensorgrad.tensor import Tensor

_FORMAT = 1
_ENTRY = "tensorgrad"  # one entry only: the order of several would differ from run to run
_MARK = "$"  # the key of a JSON object that stands for something JSON has no word for
_LONG = 2048  # bits; Python may refuse to write longer integers in decimal, or to read them
_REMEDY = "take another checkpoint, or train again"


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
    before: Callable[[], None] | None = None,
) -> None:
    """Write ``state`` to the file ``path``, in one step: an interruption leaves the old file.

    state: dicts, lists and tuples, nested at will, of tensors, arrays, numbers, texts and None.
    config: what the reader should know of how the state came about, of the same kinds.
    before: called when all is on the disk, just before it takes the place of the old file, which
        can still be given another name.

    Raises CheckpointError for anything else in the state, DtypeError for an array of a dtype that
    tensors do not have, OSError if the file cannot be written.
    """
    arrays: dict[str, ndarray[Any, Any]] = {}
    try:
        document = {
            "format": _FORMAT,
            "state": _pack(dict(state), "", arrays),
            "config": _pack(dict(config or {}), "config", arrays),
            "versions": versions(),
        }
        document["sha256"] = _checksum(document, arrays)
        text = json.dumps(document)
    except RecursionError as error:
        raise CheckpointError(
            "a checkpoint cannot hold a state that is nested so deeply, or that contains itself; "
            "save what it consists of"
        ) from error
    write_atomically(path, save(arrays, metadata={_ENTRY: text}), before)


def load_checkpoint(path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """What ``save_checkpoint`` wrote to the file ``path``: the state, bit by bit.

    Raises OSError if the file cannot be read, and CheckpointError if it is torn, altered, or not
    a checkpoint of tensorgrad.
    """
    path = Path(path)
    try:
        arrays, metadata = read_safetensors(path, _REMEDY)
    except DataFileError as error:
        raise CheckpointError(str(error)) from error
    text = metadata.get(_ENTRY)
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of tensorgrad; read its arrays with "
            "safetensors.numpy.load_file"
        )
    altered = CheckpointError(
        f"{path}: its content does not match its checksum, so it was altered or damaged; {_REMEDY}"
    )
    try:
        document = json.loads(text)
        checksum, written_in = document.pop("sha256"), document.get("format")
        if written_in == _FORMAT and checksum == _checksum(document, arrays):
            return LoadedCheckpoint(
                _unpack(document["state"], arrays),
                _unpack(document["config"], arrays),
                document["versions"],
            )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise altered from error
    if written_in != _FORMAT:
        raise CheckpointError(
            f"{path}: written in format {written_in!r}; this version of tensorgrad reads format "
            f"{_FORMAT}. Read it with the version that wrote it: {document.get('versions')}"
        )
    raise altered


def older(path: str | os.PathLike[str], number: int) -> Path:
    """The file of the checkpoint ``number`` saves before the newest, which is ``path``."""
    path = Path(path)
    return path.with_suffix(f".{number}{path.suffix}") if number else path


def kept(path: str | os.PathLike[str]) -> list[Path]:
    """The files that ``Checkpointing`` keeps under ``path``, newest first; none if there are none.

    A number may be missing: a process can be killed while it gives the files their next names.
    """
    path = Path(path)
    start, end = f"{path.stem}.", path.suffix
    numbers: list[int] = []
    if path.parent.is_dir():
        for name in os.listdir(path.parent):
            number = name.removeprefix(start).removesuffix(end)
            if number.isdecimal() and older(path, int(number)).name == name:
                numbers.append(int(number))
    files = [path] if os.path.lexists(path) else []
    return files + [older(path, number) for number in sorted(numbers)]


def load_newest(path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """The newest whole checkpoint of those that ``Checkpointing`` keeps under ``path``.

    If the newest is damaged, unreadable or missing, those before it are tried; a warning says which
    is used.

    Raises CheckpointError if none is whole, with what is wrong with each; FileNotFoundError if
    there is none at all.
    """
    path = Path(path)
    candidates = kept(path)
    if not candidates:
        raise FileNotFoundError(f"there is no checkpoint {path}")
    problems = [] if candidates[0] == path else [f"{path}: missing"]
    for candidate in candidates:
        try:
            found = load_checkpoint(candidate)
        except CheckpointError as error:
            problems.append(str(error))
        except OSError as error:  # a bad sector, or a link that leads nowhere
            problems.append(f"{candidate}: cannot be read ({error.strerror or error})")
        else:
            if problems:
                warnings.warn(
                    f"{'; '.join(problems)}. Going on from the one before, {candidate}",
                    stacklevel=2,
                )
            return found
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
    if isinstance(value, int) and value.bit_length() > _LONG:
        return {_MARK: "integer", "hex": hex(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) or is_array(value):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        array = value.data if isinstance(value, Tensor) else value
        name = path.encode(errors="backslashreplace").decode()  # JSON of the format is UTF-8
        while name in arrays or name == METADATA:
            name += "_"
        if array.dtype != np.complex128:
            arrays[name] = host_array(array)
            return {_MARK: kind, "name": name}
        host = np.asarray(Tensor(array, copy=None)._host(), order="C")
        arrays[name] = np.stack([host.real, host.imag], -1)  # the format has no complex128
        return {_MARK: kind, "name": name, "complex": True}
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
    if kind in ("tensor", "array"):
        array = arrays[value["name"]]
        if value.get("complex"):
            array = array.view(np.complex128).reshape(array.shape[:-1])
        return Tensor(array, device="cpu", copy=None) if kind == "tensor" else array
    if kind == "integer":
        return int(value["hex"], 16)
    items = _unpack(value["items"], arrays)
    return tuple(items) if kind == "tuple" else dict(items)
