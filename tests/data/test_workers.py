"""Worker threads and processes: the same batches in the same order, errors where they arise."""

from __future__ import annotations

import multiprocessing
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


# --- errors that cannot leave a process, workers that are stuck -----------------------------------


class TwoArgumentsError(Exception):
    """Cannot be made again from its one text."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"example {number}: {why}")


class GarbledError(Exception):
    """Can be made again, but says something else then."""

    def __init__(self, number: Any, why: str = "torn") -> None:
        super().__init__(f"example {number}: {why}")


class KeywordsOnlyError(Exception):
    """Its argument has a name."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"example {number}: torn")


class HoldsALockError(Exception):
    """Cannot be pickled at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class RefusesToBeMadeError(Exception):
    """Pickled, but raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


class TurnsIntoTextError(Exception):
    """Pickled as something that is no exception."""

    def __reduce__(self) -> Any:
        return (str, ("torn",))


class OfAnotherKindError(BaseException):
    """Not an Exception."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"example {number}: {why}")


class WholeError(Exception):
    """Survives a process as it is, with what it holds."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text, number)
        self.number = number


def local() -> Exception:
    """Of a class that no other process can find."""

    class InnerError(Exception):
        pass

    return InnerError("example 5: torn")


def fails(what: str) -> BaseException:
    made: dict[str, Any] = {
        "two arguments": lambda: TwoArgumentsError(5, "torn"),
        "garbled": lambda: GarbledError(5),
        "keywords": lambda: KeywordsOnlyError(number=5),
        "lock": lambda: HoldsALockError("example 5: torn"),
        "refuses": lambda: RefusesToBeMadeError("example 5: torn"),
        "no error": lambda: TurnsIntoTextError("example 5: torn"),
        "local": local,
        "base": lambda: OfAnotherKindError(5, "torn"),
        "nested": lambda: ExceptionGroup("example 5: torn", [TwoArgumentsError(5, "torn")]),
    }
    found: BaseException = made[what]()
    return found


class Failing:
    """Raises at example 5; ``unpicklable`` gives a result that no process can hand out."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            if self.what == "whole":
                raise WholeError("example 5: torn", 5)
            raise fails(self.what)
        return np.full(1, index, np.float32)


NAMES = ["two arguments", "garbled", "keywords", "lock", "refuses", "no error", "local", "base",
         "nested"]  # fmt: skip


@pytest.mark.parametrize("options", [{}, *WORKERS])
@pytest.mark.parametrize("what", NAMES)
def test_errors_of_every_kind(what: str, options: dict[str, Any]) -> None:
    """Arrive as they are, or are quoted where they cannot leave a process; the loader goes on."""
    loader = DataLoader(Failing(what), 2, **options)
    for _ in range(2):
        batches = iter(loader)
        assert [next(batches)[0].tolist() for _ in range(2)] == [[[0], [1]], [[2], [3]]]
        with pytest.raises(BaseException, match="example 5: torn") as caught:
            next(batches)
        if options.get("processes"):
            assert isinstance(caught.value, TensorgradError)
            assert "in __getitem__" in "".join(caught.value.__notes__)
            assert type(fails(what)).__name__ in str(caught.value)
        else:
            assert type(caught.value).__name__ == type(fails(what)).__name__


def test_an_error_that_survives_comes_as_it_is() -> None:
    """With its attributes, and a note of where it arose."""
    with pytest.raises(WholeError) as caught:
        list(DataLoader(Failing("whole"), 2, workers=1, processes=True))
    assert caught.value.number == 5
    assert "in __getitem__" in caught.value.__notes__[0]


def unpicklable(*x: Any) -> Any:
    """A transform whose result cannot be handed out."""
    return (lambda: x,)


def test_what_cannot_be_handed_out_or_in() -> None:
    """A result or a data set that cannot be pickled: said, and the loader goes on."""
    loader = DataLoader(Squares(4), 2, workers=1, processes=True, transform=unpicklable)
    for _ in range(2):
        with pytest.raises(Exception, match=r"unpicklable.*lambda"):
            next(iter(loader))
    loader = DataLoader(Squares(4), 2, workers=1, processes=True, transform=lambda *x: x)
    for _ in range(2):
        with pytest.raises(TensorgradError, match=r"can be pickled: .*or take processes=False"):
            next(iter(loader))


def test_a_loader_whose_worker_died_goes_on() -> None:
    """Another process takes its place in the next pass."""
    loader = DataLoader(Squares(12, kill=7), 2, workers=2, processes=True)
    for _ in range(2):
        batches = iter(loader)
        assert [next(batches)[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(TensorgradError, match="ended unexpectedly"):
            next(batches)


class Shared(Squares):
    """Holds a number that processes share."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.seen = multiprocessing.get_context("spawn").Value("i", 0)

    def __getitem__(self, index: int) -> tuple[np.float32, int]:
        with self.seen.get_lock():
            self.seen.value += 1
        return np.float32(0), index


def test_what_processes_share_can_be_part_of_a_data_set() -> None:
    """As multiprocessing hands it to a process that begins."""
    data = Shared(10)
    assert len(list(DataLoader(data, 2, workers=2, processes=True))) == 5
    assert data.seen.value == 10


def run(tmp_path: Path, body: str, timeout: float = 60) -> tuple[int, str, float]:
    """A script of its own; its exit code, what it printed, and the seconds it took."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys, time, os, signal, threading\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy as np\nfrom tensorgrad.data import DataLoader\n" + body
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script)],  # of a fork with threads
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


ROOT = Path(__file__).parents[2]

STUCK = {
    "asleep": "time.sleep(1000)",
    "busy": "\n            while True: pass",
    "deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
}


@pytest.mark.parametrize(
    ("what", "processes", "end"),
    [
        ("asleep", False, ""),
        ("asleep", True, ""),
        ("busy", False, ""),
        ("busy", True, ""),
        ("deaf", True, ""),
        ("asleep", False, "del it, loader; "),
        ("deaf", True, "del it, loader; "),
    ],
)
def test_a_stuck_worker_does_not_keep_the_program(
    tmp_path: Path, what: str, processes: bool, end: str
) -> None:
    """It ends with its exit code, also where the loader is gone by then."""
    code, text, seconds = run(
        tmp_path,
        "class D:\n    def __len__(self): return 8\n    def __getitem__(self, i):\n"
        f"        if i == 3: {STUCK[what]}\n        return np.ones(3, np.float32)\n"
        "if __name__ == '__main__':\n"
        f"    loader = DataLoader(D(), 2, workers=2, processes={processes})\n"
        f"    it = iter(loader); next(it); {end}sys.exit(7)\n",
    )
    assert (code, text) == (7, "")
    assert seconds < 40


@pytest.mark.parametrize("processes", [False, True])
def test_a_worker_in_the_middle_of_a_batch_may_finish_it(tmp_path: Path, processes: bool) -> None:
    """When the program ends, so that what an example writes is not cut short."""
    place = tmp_path / "written"
    code, text, _ = run(
        tmp_path,
        "class D:\n    def __len__(self): return 8\n    def __getitem__(self, i):\n"
        "        if i == 1:\n            open(sys.argv[0] + '.begun', 'w').close()\n"
        f"            time.sleep(0.4); open({str(place)!r}, 'w').write('whole')\n"
        "        return np.ones(3, np.float32)\n"
        "if __name__ == '__main__':\n"
        f"    it = iter(DataLoader(D(), 1, workers=1, processes={processes})); next(it)\n"
        "    while not os.path.exists(sys.argv[0] + '.begun'): time.sleep(0.01)\n",
    )
    assert (code, text) == (0, "")
    assert place.read_text() == "whole"


def test_scripts_without_a_guard(tmp_path: Path) -> None:
    """One that ends with sys.exit() works; one that would start processes again is told."""
    body = (
        "class D:\n    def __len__(self): return 4\n    def __getitem__(self, i): return i\n"
        "def go(): print(len(list(DataLoader(D(), 2, workers=2, processes=True))))\n"
    )
    code, text, _ = run(tmp_path, body + "if __name__ == '__main__': go()\nsys.exit(5)\n")
    assert (code, text) == (5, "2\n")
    code, text, _ = run(tmp_path, body + "go()\n")
    assert code == 1
    assert 'a script that starts processes needs if __name__ == "__main__"' in text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("processes", [False, True])
def test_in_a_fork(tmp_path: Path, processes: bool) -> None:
    """A forked process has workers of its own, and leaves those of its parent alone."""
    # multiprocessing's own handler at exit takes the processes of the parent for its own.
    leave = "os._exit" if processes else "sys.exit"
    code, text, _ = run(
        tmp_path,
        "class D:\n    def __len__(self): return 6\n    def __getitem__(self, i): return i\n"
        "if __name__ == '__main__':\n"
        f"    loader = DataLoader(D(), 2, workers=2, processes={processes})\n"
        "    print(len(list(loader)), flush=True)\n"
        "    child = os.fork()\n"
        f"    if not child:\n        print(len(list(loader)), flush=True); {leave}(3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3\n"
        "    print([x.tolist() for x, in loader])\n",
    )
    assert (code, text) == (0, "3\n3\n[[0, 1], [2, 3], [4, 5]]\n")
