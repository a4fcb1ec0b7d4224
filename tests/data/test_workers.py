"""Worker threads and processes: the same batches in the same order, errors where they arise."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import DataLoader, DatasetError, TensorDataset
from tensorgrad.errors import TensorgradError

WORKERS = [{"workers": 1}, {"workers": 3}, {"workers": 2, "processes": True}]


class Squares:
    """A data set without ``take``, slow enough for workers to overtake one another."""

    def __init__(self, n: int, bad: int = -1, kill: int = -1) -> None:
        self.n, self.bad, self.kill = n, bad, kill

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[np.float32, int]:
        if index == self.bad:
            raise ValueError(f"example {index} is damaged")
        if index == self.kill:
            os._exit(3)
        time.sleep(0.002 * (index % 3))
        return np.float32(index**2), index


@pytest.mark.parametrize("options", WORKERS)
def test_same_batches_in_the_same_order(options: dict[str, Any]) -> None:
    """For several epochs, and after breaking off in the middle of one."""

    def epochs(loader: DataLoader) -> list[list[int]]:
        found = [[i for _, t in loader for i in t.tolist()] for _ in range(2)]
        next(iter(loader))
        return [*found, [i for _, t in loader for i in t.tolist()]]

    plain = DataLoader(Squares(23), 4, True, seed=2)
    assert epochs(DataLoader(Squares(23), 4, True, seed=2, **options)) == epochs(plain)


@pytest.mark.parametrize("options", WORKERS)
def test_state_counts_what_was_handed_out(options: dict[str, Any]) -> None:
    """Batches under way are not done: a resumed loader begins with them."""
    loader = DataLoader(Squares(20), 2, True, seed=2, **options)
    batches = iter(loader)
    first = [next(batches)[1].tolist() for _ in range(3)]
    resumed = DataLoader(Squares(20), 2, True, seed=0, **options)
    resumed.load_state_dict(loader.state_dict())
    rest = [t.tolist() for _, t in resumed]
    plain = [t.tolist() for _, t in DataLoader(Squares(20), 2, True, seed=2)]
    assert first + rest == plain


@pytest.mark.parametrize("options", WORKERS)
def test_errors_arise_at_their_batch(options: dict[str, Any]) -> None:
    """The batches before come first."""
    batches = iter(DataLoader(Squares(12, bad=7), 2, **options))
    assert [next(batches)[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="example 7 is damaged"):
        next(batches)


def test_a_worker_that_dies() -> None:
    """Is reported, with what may be the reason."""
    with pytest.raises(TensorgradError, match="take fewer workers"):
        list(DataLoader(Squares(12, kill=7), 2, workers=2, processes=True))


def test_fetches_ahead() -> None:
    """Up to workers + prefetch batches are under way while one is in use."""
    asked: list[int] = []
    lock = threading.Lock()

    class Noted(Squares):
        def __getitem__(self, index: int) -> tuple[np.float32, int]:
            with lock:
                asked.append(index)
            return np.float32(0), index

    batches = iter(DataLoader(Noted(50), 1, workers=2, prefetch=3))
    next(batches)
    deadline = time.monotonic() + 20
    while len(asked) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(asked) == list(range(6))


def test_refused() -> None:
    """Counts below 0, and processes without a number."""
    data = TensorDataset(np.zeros(3))
    with pytest.raises(DatasetError, match="workers must be a whole number from 0"):
        DataLoader(data, workers=-1)
    with pytest.raises(DatasetError, match="needs a number of workers"):
        DataLoader(data, processes=True)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """No process is left behind, even by SIGKILL."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys, signal\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tensorgrad.data import DataLoader\n"
        "class Pids:\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, i): return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    loader = DataLoader(Pids(), 1, workers=2, processes=True)\n"
        "    pids = {int(p.item()) for p, in loader}\n"
        "    print(*pids, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Through a file: a worker that is left would hold a pipe open.
    with (tmp_path / "out").open("w") as out:
        subprocess.run(
            [sys.executable, str(script)],
            stdout=out, stderr=subprocess.DEVNULL, check=False, timeout=60,
        )  # fmt: skip
    pids = [int(pid) for pid in (tmp_path / "out").read_text().split()]
    assert pids
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.05)
    assert not [pid for pid in pids if _alive(pid)]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
