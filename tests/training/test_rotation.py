"""Keeping several checkpoints: their order, and what a kill or a full disk leaves at any moment."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tensorgrad.training import Checkpointing, load_checkpoint, load_newest
from tensorgrad.training.checkpoint import kept

#: What a process asks the system to do with files, as Python reports it.
_CALLS = {"open", "os.link", "os.remove", "os.rename", "os.truncate"}


class Counting:
    """Stands for a trainer: its state is how often it was saved."""

    def __init__(self, saves: int = 0) -> None:
        self.saves = saves

    def state_dict(self) -> dict[str, Any]:
        """One more each time."""
        self.saves += 1
        return {"saves": self.saves}


def saves(paths: list[Path]) -> list[int]:
    """Which checkpoint each of the files holds."""
    return [load_checkpoint(path).state["saves"] for path in paths]


def in_child(action: Callable[[], None], stop_at: int, how: str) -> bool:
    """Do it in a process that ends, or meets errors, at call ``stop_at``; whether it got there."""
    child = os.fork()
    if not child:
        calls = [0]

        def watch(event: str, args: tuple[Any, ...]) -> None:
            if event in _CALLS:
                calls[0] += 1
                if calls[0] == stop_at and how == "killed":
                    os._exit(9)
                if calls[0] == stop_at and how == "full":
                    raise OSError(28, "no space is left")

        code = 1
        try:
            sys.addaudithook(watch)
            with contextlib.suppress(OSError):
                action()
            code = 9 if calls[0] >= stop_at else 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a process with threads is forked
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("how", ["killed", "full"])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_stopped_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, how: str, links: bool
) -> None:
    """There are ``keep`` whole checkpoints, each a file of its own, and the newest is found."""
    path = tmp_path / "c.safetensors"
    if not links:

        def refused(*_: Any) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refused)
    stopped_at = 0
    stopped = True
    while stopped:
        stopped_at += 1
        for old in tmp_path.iterdir():
            old.unlink()
        checkpoints, trainer = Checkpointing(path, keep=keep), Counting()
        for _ in range(4):
            checkpoints.save(trainer)  # type: ignore[arg-type]
        stopped = in_child(
            lambda c=checkpoints, t=trainer: c.save(t),  # type: ignore[misc]
            stopped_at,
            how,
        )
        files = kept(path)
        whole = {file.stat().st_ino: number for file, number in zip(files, saves(files))}
        assert len(whole) >= keep
        assert max(whole.values()) >= 4
        assert saves(files[:1]) == [max(whole.values())]
        # The next one puts all in order.
        for _ in range(2):
            checkpoints.save(Counting(trainer.saves + 5))  # type: ignore[arg-type]
        checkpoints.save(Counting(20))  # type: ignore[arg-type]
        assert len(kept(path)) == keep
        assert saves(kept(path))[:2] == [21, 10][:keep]
        assert len({file.stat().st_ino for file in kept(path)}) == keep
    assert stopped_at > (2 if keep == 1 else 6)


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_the_newest_are_kept_in_order(tmp_path: Path, keep: int) -> None:
    """Never more than ``keep``; the numbers say how old they are."""
    path = tmp_path / "run[1].safetensors"  # a name that a pattern would take otherwise
    checkpoints, trainer = Checkpointing(path, keep=keep), Counting()
    for number in range(1, 8):
        checkpoints.save(trainer)  # type: ignore[arg-type]
        expected = list(range(number, max(number - keep, 0), -1))
        assert saves(kept(path)) == expected
        names = ["run[1].safetensors", *(f"run[1].{i}.safetensors" for i in range(1, keep))]
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[: len(expected)])


def test_an_older_one_is_found_beyond_a_gap(tmp_path: Path) -> None:
    """A number that is missing does not hide those after it; other names are nobody's."""
    path = tmp_path / "c.safetensors"
    checkpoints, trainer = Checkpointing(path, keep=4), Counting()
    for _ in range(4):
        checkpoints.save(trainer)  # type: ignore[arg-type]
    path.write_bytes(b"torn")
    (tmp_path / "c.1.safetensors").unlink()
    (tmp_path / "c.2.safetensors").unlink()
    for name in ("c.best.safetensors", "c.01.safetensors", "c.0.safetensors", "cc.1.safetensors"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.warns(UserWarning, match=r"c\.safetensors: torn.*the one before.*c\.3\."):
        assert load_newest(path).state == {"saves": 1}


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """A folder, a link that leads nowhere: the checkpoint before is taken."""
    path = tmp_path / "c.safetensors"
    checkpoints, trainer = Checkpointing(path, keep=3), Counting()
    for _ in range(3):
        checkpoints.save(trainer)  # type: ignore[arg-type]
    path.unlink()
    path.mkdir()
    (tmp_path / "c.1.safetensors").unlink()
    (tmp_path / "c.1.safetensors").symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"c\.safetensors: cannot be read.*c\.1.*cannot be read"):
        assert load_newest(path).state == {"saves": 1}


def test_a_smaller_keep_and_files_that_are_one(tmp_path: Path) -> None:
    """After a run with a larger ``keep``, and where two names are one file, as once was left."""
    path = tmp_path / "c.safetensors"
    trainer = Counting()
    for _ in range(3):
        Checkpointing(path, keep=3).save(trainer)  # type: ignore[arg-type]
    (tmp_path / "c.1.safetensors").unlink()
    os.link(path, tmp_path / "c.1.safetensors")
    Checkpointing(path, keep=2).save(trainer)  # type: ignore[arg-type]
    assert saves(kept(path)) == [4, 3]


@pytest.mark.parametrize("where", [".", "large"])
def test_through_a_symbolic_link(tmp_path: Path, where: str) -> None:
    """The link stays and its file is written; older ones have names beside the link."""
    (tmp_path / "large").mkdir()
    target = tmp_path / where / "real.safetensors"
    path = tmp_path / "c.safetensors"
    path.symlink_to(target)  # leads nowhere yet
    checkpoints, trainer = Checkpointing(path, keep=2), Counting()
    left = target.with_name(f".{target.name}.0123abcd.part")
    for number in range(1, 4):
        checkpoints.save(trainer)  # type: ignore[arg-type]
        assert path.is_symlink()
        assert saves([target]) == [number]
        assert saves(kept(path)) == [number, number - 1][: min(number, 2)]
    left.write_bytes(b"half")
    checkpoints.on_fit_start(trainer, None, 1)  # type: ignore[arg-type]
    assert not left.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_newest(path).state == {"saves": 3}
