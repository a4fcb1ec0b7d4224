"""Weights in safetensors files: names that wrappers made, dtypes, names the format keeps."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tensorgrad import nn
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError
from tensorgrad.training import CheckpointError, load_checkpoint

W, B = np.arange(4, dtype=np.float32).reshape(2, 2), np.array([5, 6], np.float32)


class Holder(nn.Module):
    """A model whose own names look like those of a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)


class Parts(nn.Module):
    """Two layers under names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2, bias=False)


def written(path: Path, names: list[str]) -> dict[str, Any]:
    """A file with a weight, a bias, or a count under each of the names."""
    arrays: dict[str, Any] = {
        name: np.array(3) if name.endswith("n_averaged") else (W if name.endswith("t") else B)
        for name in names
    }
    save_file(arrays, path)
    return arrays


@pytest.mark.parametrize(
    "names",
    [
        ["weight", "bias"],
        ["module.weight", "module.bias"],
        ["_orig_mod.module.weight", "_orig_mod.module.bias"],
        ["module._orig_mod.weight", "module._orig_mod.bias"],
        ["module.module.module.weight", "module.module.module.bias"],
        ["module.weight", "module.bias", "n_averaged"],
        ["module._orig_mod.weight", "module._orig_mod.bias", "n_averaged"],
        ["_orig_mod.module.weight", "_orig_mod.module.bias", "_orig_mod.n_averaged"],
        ["module.module.weight", "module.module.bias", "module.n_averaged"],
        ["_forward_module.weight", "_forward_module.bias"],
        ["_fsdp_wrapped_module.weight", "_fsdp_wrapped_module._checkpoint_wrapped_module.bias"],
    ],
    ids=lambda names: names[-1],
)
@pytest.mark.parametrize("made", [lambda: nn.Linear(2, 2), Holder], ids=["plain", "holder"])
def test_names_of_wrappers(tmp_path: Path, names: list[str], made: Any) -> None:
    """Whatever was wrapped around a model; also where the model has such a name itself."""
    written(tmp_path / "w", names)
    model = made()
    result = nn.load_safetensors(model, tmp_path / "w")
    assert not any(result)
    weight, bias = model.state_dict().values()
    np.testing.assert_array_equal(weight.numpy(), W)
    np.testing.assert_array_equal(bias.numpy(), B)


def test_wrappers_around_parts(tmp_path: Path) -> None:
    """Each part may have another."""
    names = ["encoder._orig_mod.weight", "encoder._orig_mod.bias", "head.module.weight"]
    written(tmp_path / "w", names)
    model = Parts()
    assert not any(nn.load_safetensors(model, tmp_path / "w"))
    np.testing.assert_array_equal(model.head.weight.detach().numpy(), W)


def test_what_is_no_wrapper(tmp_path: Path) -> None:
    """A count without a wrapper, two names for one parameter, and names that do not fit."""
    model = nn.Linear(2, 2)
    for names, wrong in (
        (["weight", "bias", "n_averaged"], "unexpected: n_averaged"),
        (["weight", "module.weight", "bias"], r"unexpected: module\.weight"),
        (["model.weight", "model.bias"], r"unexpected: model\.bias, model\.weight"),
        (["module.weight", "module.extra.bias"], r"missing: bias; unexpected: extra\.bias"),
    ):
        written(tmp_path / "w", names)
        with pytest.raises(ValueError, match=wrong):
            nn.load_safetensors(model, tmp_path / "w")
    written(tmp_path / "w", ["module.weight", "module.extra.bias"])
    found = nn.load_safetensors(model, tmp_path / "w", strict=False)
    assert found.missing_keys == ["bias"]
    np.testing.assert_array_equal(model.weight.detach().numpy(), W)


def test_renamed_after_wrappers_are_gone(tmp_path: Path) -> None:
    """``rename`` is given names without what all of them begin with; no two may become one."""
    written(tmp_path / "w", ["_orig_mod.module.enc.weight", "_orig_mod.module.enc.bias"])
    model = Parts()
    found = nn.load_safetensors(
        model, tmp_path / "w", strict=False, rename=lambda name: name.replace("enc", "encoder")
    )
    assert found.missing_keys == ["head.weight"]
    np.testing.assert_array_equal(model.encoder.weight.detach().numpy(), W)
    with pytest.raises(ValueError, match=r"enc\..* and .*enc\..* both renamed to encoder\.weight"):
        nn.load_safetensors(model, tmp_path / "w", rename=lambda name: "encoder.weight")


def test_renamed_to_none_is_left_out(tmp_path: Path) -> None:
    """By a dict or by a function."""
    written(tmp_path / "w", ["weight", "bias", "numbers.weight"])
    for rename in ({"numbers.weight": None}, lambda name: None if "numbers" in name else name):
        model = nn.Linear(2, 2)
        assert not any(nn.load_safetensors(model, tmp_path / "w", rename=rename))
        np.testing.assert_array_equal(model.weight.detach().numpy(), W)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "float64", "E8M0", "X"])
@pytest.mark.parametrize("entry", [False, True], ids=["weights", "checkpoint"])
def test_an_unknown_dtype(tmp_path: Path, dtype: str, entry: bool) -> None:
    """Is named, with the array that has it; the file is not called torn."""
    sizes = {"float64": 32, "F4": 2}
    end = sizes.get(dtype, 4)
    header: dict[str, Any] = {
        "deep.weight": {"dtype": dtype, "shape": [4], "data_offsets": [0, end]}
    }
    if entry:
        header["__metadata__"] = {"tensorgrad": "{}"}
    text = json.dumps(header).encode()
    path = tmp_path / "w"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    read: Any = load_checkpoint if entry else lambda p: nn.load_safetensors(nn.Linear(2, 2), p)
    kind = CheckpointError if entry else DataFileError
    with pytest.raises(kind, match=f"'deep.weight' is of dtype '{dtype}'") as caught:
        read(path)
    assert "torn" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool"])
def test_known_dtypes_are_converted(tmp_path: Path, dtype: str) -> None:
    """To that of the model."""
    save_file({"weight": W.astype(dtype), "bias": B.astype(dtype)}, tmp_path / "w")
    model = nn.Linear(2, 2)
    nn.load_safetensors(model, tmp_path / "w")
    assert model.weight.dtype == np.float32
    np.testing.assert_array_equal(model.weight.detach().numpy(), W.astype(dtype).astype("f4"))


def test_a_name_that_the_format_keeps(tmp_path: Path) -> None:
    """Is refused, and nothing is written."""
    model = nn.Module()
    model.__metadata__ = nn.Parameter(W)
    with pytest.raises(TensorgradError, match="another one"):
        nn.save_safetensors(model, tmp_path / "w")
    assert not (tmp_path / "w").exists()
