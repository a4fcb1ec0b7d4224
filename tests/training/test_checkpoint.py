"""Checkpoint files: whatever goes in comes out bit by bit, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import math
import os
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
from tensorgrad.training import CheckpointError, load_checkpoint, load_newest, save_checkpoint


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
        save_checkpoint(tmp_path / "c", {"x": np.zeros(2, np.clongdouble)})
    assert load_checkpoint(tmp_path / "c").state == {"n": 1}


def test_names_and_numbers_the_format_has_no_room_for(tmp_path: Path) -> None:
    """The format's own name, names that are no Unicode, integers of thousands of digits."""
    state: Any = {
        "__metadata__": Tensor([1.0]),
        "__metadata___": np.arange(2),
        "\udcff": np.arange(3),  # from a file name that is not UTF-8
        "large": [10**5000, -(10**5000), 2**2048, 2**64],
        "$": {"hex": "0x1"},
    }
    save_checkpoint(tmp_path / "c", state, {"file": "\udcff"})
    found = load_checkpoint(tmp_path / "c")
    assert equal(found.state, state)
    assert found.config == {"file": "\udcff"}


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_refuses_what_is_nested_without_end(tmp_path: Path) -> None:
    """A state that holds itself, or is too deep to be read back."""
    circle: dict[str, Any] = {}
    circle["again"] = {"and": [circle]}
    for state in (circle, {"deep": nested(100_000)}):
        with pytest.raises(CheckpointError, match="nested so deeply, or that contains itself"):
            save_checkpoint(tmp_path / "c", state)
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / "c", {"deep": nested(60)})
    assert load_checkpoint(tmp_path / "c").state == {"deep": nested(60)}


def header_of(metadata: Any, **arrays: Any) -> bytes:
    """A safetensors file with four bytes of data."""
    text = json.dumps({"__metadata__": metadata, **arrays}).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * (4 if arrays else 0)


DIGITS = "9" * 5000
STRANGE = {
    "metadata is null": header_of(None),
    "metadata is a list": header_of([1]),
    "metadata is a number": header_of(5),
    "entry is no text": header_of({"tensorgrad": 5}),
    "entry is null": header_of({"tensorgrad": None}),
    "entry is no JSON": header_of({"tensorgrad": "{"}),
    "entry is no object": header_of({"tensorgrad": "[]"}),
    "entry is a number": header_of({"tensorgrad": "5"}),
    "entry is deep": header_of({"tensorgrad": "[" * 100_000 + "]" * 100_000}),
    "deep objects": header_of({"tensorgrad": '{"sha256":' * 50_000 + "1" + "}" * 50_000}),
    "deep state": header_of(
        {"tensorgrad": '{"format": 1, "sha256": "", "state": ' + "[" * 900 + "]" * 900 + "}"}
    ),
    "large integer": header_of({"tensorgrad": f'{{"format": {DIGITS}, "sha256": 1}}'}),
    "large shape": header_of(
        {}, x={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    ).replace(b"[1]", f"[{DIGITS}]".encode()),
    "a file of nothing but [": b"[" * 100_000,
    "header is deep": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "header is no object": (2).to_bytes(8, "little") + b"[]",
    "header is longer than can be": b"\xff" * 8 + b"{}",
}  # fmt: skip


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_strange_files_take_one_line(tmp_path: Path, content: bytes) -> None:
    """A CheckpointError that names the file, and the checkpoint before is used."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(tmp_path / "c.1.safetensors", {"n": 7})
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.safetensors: "):
        load_checkpoint(path)
    with pytest.warns(UserWarning, match=r"Going on from the one before, .*c\.1\.safetensors"):
        assert load_newest(path).state == {"n": 7}


def test_a_whole_checksum_over_no_checkpoint(tmp_path: Path) -> None:
    """A document with the right checksum and without what a checkpoint consists of."""
    for document in ({"format": 1}, {"format": 1, "state": {"$": "tensor", "name": "x"}}):
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        text = json.dumps({**document, "sha256": digest})
        (tmp_path / "c").write_bytes(header_of({"tensorgrad": text}))
        with pytest.raises(CheckpointError, match="altered or damaged"):
            load_checkpoint(tmp_path / "c")


def test_only_files_are_written_anew(tmp_path: Path) -> None:
    """Not what is no regular file: renaming would put a file in the place of a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "to_pipe").symlink_to(pipe)
    for name in ("pipe", "folder", "round", "to_pipe"):
        with pytest.raises(OSError, match=r"regular file|levels of symbolic links"):
            save_checkpoint(tmp_path / name, {"n": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe", "round", "to_pipe"]
    assert pipe.is_fifo()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_who_may_read_a_file_stays_the_same(tmp_path: Path, mode: int) -> None:
    """A file that is written anew keeps its mode; a new one has the usual one."""
    path = tmp_path / "c"
    save_checkpoint(path, {"n": 1})
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    path.chmod(mode)
    save_checkpoint(path, {"n": 2})
    assert path.stat().st_mode & 0o777 == mode
    assert load_checkpoint(path).state == {"n": 2}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes into: refused, and the checkpoint before is used."""
    os.mkfifo(tmp_path / "c.safetensors")
    save_checkpoint(tmp_path / "c.1.safetensors", {"n": 3})
    with pytest.raises((CheckpointError, OSError)):
        load_checkpoint(tmp_path / "c.safetensors")
    with pytest.warns(UserWarning, match="Going on from the one before"):
        assert load_newest(tmp_path / "c.safetensors").state == {"n": 3}
