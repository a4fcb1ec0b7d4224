"""What the README shows works as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from standin import cupy_standin

import tensorgrad as tg

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_python_examples_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes a checkpoint
    names: dict[str, object] = {"tg": tg}
    shown = [b for b in blocks("python") if not b.startswith(("exp = elementwise", "import cupy"))]
    assert len(shown) >= 3
    for block in shown:
        exec(compile(block, "README.md", "exec"), names)
    trainer: Any = names["trainer"]
    assert trainer.history[-1]["validation_accuracy"] > 0.9
    assert (tmp_path / "digits.safetensors").exists()
    assert "(50, 10)" in capsys.readouterr().out
    loss, h = names["loss"], names["h"]
    assert isinstance(loss, tg.Tensor)
    assert loss.item() < 1e-3
    assert isinstance(h, tg.Tensor)
    assert h.tolist() == [[6.0, 0.0], [0.0, 12.0]]
    step: Any = names["step"]
    inputs, target = tg.tensor([[0.0, 1], [1, 1]]), tg.tensor([[1.0], [0]])
    losses = [step(inputs, target).item() for _ in range(20)]
    assert step.captures == 1
    assert losses[-1] < losses[0]


def test_the_kernel_of_a_users_own_runs() -> None:
    """On the stand-in for CuPy: the kernel is run by the emulator, and the rule stays the CPU's."""
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    (operation,) = [b for b in blocks("python") if "@custom_operation" in b]
    (kernel,) = [b for b in blocks("python") if b.startswith("import cupy")]
    names: dict[str, Any] = {"tg": tg}
    numbers = np.linspace(-3, 3, 1000, dtype=np.float32)
    with cupy_standin.installed():
        exec(compile(operation + kernel, "README.md", "exec"), names)
        x = tg.tensor(numbers, device="cuda", requires_grad=True)
        before = cupy_standin.log.launches
        y = names["softsign"](x)
        assert cupy_standin.log.launches == before + 1
        y.sum().backward()
        np.testing.assert_allclose(y.detach().cpu().numpy(), numbers / (1 + abs(numbers)), 1e-6)
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.cpu().numpy(), (1 + abs(numbers)) ** -2.0, 1e-6)
    on_host = names["softsign"](tg.tensor(numbers))
    np.testing.assert_allclose(on_host.numpy(), numbers / (1 + abs(numbers)), 1e-6)


def test_there_are_two_commands_that_make_their_own_environment() -> None:
    commands = [line for b in blocks("sh") for line in b.splitlines() if "venv .venv" in line]
    assert [line.rpartition("&&")[2].split()[0] for line in commands] == [
        ".venv/bin/tensorgrad",
        ".venv/bin/python",
    ]


def test_the_row_shown_is_the_row_in_the_table() -> None:
    (row,) = [b for b in blocks("python") if b.startswith("exp = elementwise")]
    source = (Path(tg.__file__).parent / "ops" / "elementwise.py").read_text()
    assert row.strip() in source


def test_no_licence_is_claimed() -> None:
    text = README.read_text()
    assert "The owner has not chosen a licence yet" in text
    assert "license" not in (README.parent / "pyproject.toml").read_text()
