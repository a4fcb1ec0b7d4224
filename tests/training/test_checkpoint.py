"""Checkpoint files: whatever goes in comes out bit by bit, and damage is noticed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tensorgrad import dtypes
from tensorgrad.errors import DtypeError
from tensorgrad.tensor import Tensor
from tensorgrad.training import CheckpointError, load_checkpoint, save_checkpoint


def equal(a: Any, b: Any) -> bool:
    """Whether two states are the same, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return equal(a.data, b.data)
    if isinstance(a, np.ndarray):
        same = (a.dtype, a.shape) == (b.dtype, b.shape)
        return bool(same and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("dtype", sorted(dtypes.ALL, key=str), ids=str)
def test_every_dtype(tmp_path: Path, dtype: Any) -> None:
    """bfloat16 and bool included, with shapes from none to empty."""
    values = np.array([[0, 1, 3], [2, 1, 0]]).astype(dtype)
    state = {"t": Tensor(values), "a": values, "0-d": values[0, 1:2].reshape(()), "e": values[:0]}
    save_checkpoint(tmp_path / "c", state)
    found = load_checkpoint(tmp_path / "c").state
    assert equal(found, state)
    found["a"][...] = 0  # in memory of its own


def test_nested_state_and_configuration(tmp_path: Path) -> None:
    """What optimizers and loaders save: keys that are numbers, tuples, None, extreme numbers."""
    state: Any = {
        "optimizer": {"state": {0: {"step": 3, "m": Tensor([1.5, -0.0])}, 1: {}}, "lr": 1e-3},
        "betas": (0.9, 0.999),
        "key": 2**64 - 1,
        "floats": [math.inf, -math.inf, math.nan, -0.0, 0.1, 5e-324],
        "none": None,
        "flags": [True, False],
        "text": 'ä "quoted"\n$',
        "$": {"$": "tensor", "name": "x"},
        ("a", 1): [],
        "a": {"b": np.arange(2)},
        "a.b": np.arange(3),
    }
    save_checkpoint(tmp_path / "c", state, {"hidden": [64, 32]})
    found = load_checkpoint(tmp_path / "c")
    assert equal(found.state, state)
    assert found.config == {"hidden": [64, 32]}
    assert set(found.versions) == {"tensorgrad", "numpy", "python"}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), json_like, max_size=4))
def test_any_nesting(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    """Any state of the kinds that are allowed comes back as it was."""
    path = tmp_path_factory.getbasetemp() / "any"
    save_checkpoint(path, state)
    assert equal(load_checkpoint(path).state, state)


def test_memory_order_does_not_matter(tmp_path: Path) -> None:
    """Transposed, strided and big-endian arrays keep their values."""
    values = np.arange(12.0).reshape(3, 4)
    state = {"t": values.T, "s": values[::2, ::-1], "b": values.astype(">f8")}
    save_checkpoint(tmp_path / "c", state)
    found = load_checkpoint(tmp_path / "c").state
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


def test_other_readers_can_read_it(tmp_path: Path) -> None:
    """The parameters lie under their names, for any reader of safetensors."""
    save_checkpoint(tmp_path / "c", {"model": {"0.weight": Tensor([[1.0, 2.0]])}, "epoch": 1})
    assert {k: v.tolist() for k, v in load_file(tmp_path / "c").items()} == {
        "model.0.weight": [[1, 2]]
    }
    with safe_open(tmp_path / "c", "np") as file:
        assert json.loads(file.metadata()["tensorgrad"])["state"]["epoch"] == 1


def test_same_state_same_bytes(tmp_path: Path) -> None:
    """Two runs can be compared by their files."""
    for name in "ab":
        save_checkpoint(tmp_path / name, {"x": np.arange(3), "y": Tensor([1.0]), "n": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    """A flipped bit anywhere, or an end cut off anywhere, is refused with the name of the file."""
    path = tmp_path / "c"
    save_checkpoint(path, {"x": np.arange(5.0), "n": 12, "text": "abc"}, {"seed": 1})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        if content[:8] + content[8:].replace(b" ", b"") == whole[:8] + whole[8:].replace(b" ", b""):
            continue  # a space of the header's padding became nothing that matters
        with pytest.raises(CheckpointError, match=str(path)):
            load_checkpoint(path)
    for length in (0, 4, 9, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="torn"):
            load_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_refuses_other_files(tmp_path: Path) -> None:
    """Plain safetensors files, checkpoints of a format to come, and files that are not there."""
    save_file({"x": np.zeros(2)}, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="not a checkpoint of tensorgrad"):
        load_checkpoint(tmp_path / "plain")
    text = json.dumps({"format": 99, "sha256": "", "versions": {"tensorgrad": "9.0"}})
    save_file({"x": np.zeros(2)}, tmp_path / "new", {"tensorgrad": text})
    with pytest.raises(CheckpointError, match=r"format 99.*9\.0"):
        load_checkpoint(tmp_path / "new")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [len], {"a": {"b": 1j}}])
def test_refuses_what_it_cannot_hold(tmp_path: Path, value: Any) -> None:
    """Before anything is written, and an older checkpoint stays as it was."""
    save_checkpoint(tmp_path / "c", {"n": 1})
    with pytest.raises(CheckpointError, match=r"state|x"):
        save_checkpoint(tmp_path / "c", {"x": value})
    with pytest.raises(DtypeError):
        save_checkpoint(tmp_path / "c", {"x": np.zeros(2, complex)})
    assert load_checkpoint(tmp_path / "c").state == {"n": 1}
