"""``tensorgrad verify-resume``: processes are killed, and nothing may be lost."""

from __future__ import annotations

import csv
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.cli.folder import CHECKPOINT, MODEL
from tensorgrad.errors import TensorgradError
from tensorgrad.training import load_checkpoint, load_newest

# Small enough to be trained a hundred times, with everything in it that a state consists of.
_SETTINGS = (
    "--hidden", "48", "--dropout", "0.3", "--optimizer", "adam", "--schedule", "cosine",
    "--average", "0.99", "--metrics", "accuracy,f1", "--checkpoint-steps", "5",
    "--patience", "1000",
)  # fmt: skip
_WAIT = 300.0  # seconds after which a training process counts as stuck


def verify_resume(kills: int, seed: int, epochs: int, folder: str | None = None) -> int:
    """Kill training ``kills`` times; print what came out. Returns 0, or 1 if a run differed.

    Every second kill waits for a random moment between the first checkpoint and the end, every
    second for one while a checkpoint is being written.

    Raises TensorgradError if training fails for another reason.
    """
    with tempfile.TemporaryDirectory(prefix="tensorgrad-") as temporary:
        place = Path(folder or temporary)
        place.mkdir(parents=True, exist_ok=True)
        whole = place / "uninterrupted"
        process = _start(whole, epochs)
        _await_first_checkpoint(whole, process)
        started = time.perf_counter()
        _finish(process, whole)
        length = time.perf_counter() - started  # of the training itself
        expected = fingerprint(whole)
        print(f"uninterrupted: {length:.1f} s, {expected[:16]}", flush=True)
        equal = in_writing = 0
        moments = random.Random(seed)
        for number in range(1, kills + 1):
            run = place / f"killed-{number}"
            within = 0.9 * length
            while True:
                step, written = _killed(run, epochs, number % 2 == 0, moments.uniform(0, within))
                if step is not None:
                    break
                _remove(run)  # training was over before the moment came: an earlier one
                within /= 2
            in_writing += written
            _finish(_resume(run), run)
            same = fingerprint(run) == expected
            equal += same
            text = " with a checkpoint half-written" if written else ""
            print(f"{number:>4} killed after step {step}{text}: {'equal' if same else 'DIFFERS'}",
                  flush=True)  # fmt: skip
            if same and folder is None:
                _remove(run)
        print(f"{equal} of {kills} equal; {in_writing} killed with a checkpoint half-written")
    return 0 if equal == kills else 1


def fingerprint(run: Path) -> str:
    """SHA-256 of the weights, the optimizer's state and the history without the times."""
    digest = hashlib.sha256()

    def add(value: Any, path: str) -> None:
        """Take in a value: of a dict and a list each entry, by its path."""
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                add(value[key], f"{path}.{key}")
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                add(item, f"{path}.{i}")
        else:
            data = getattr(value, "data", value)
            digest.update(f"{path} ".encode())
            digest.update(data.tobytes() if isinstance(data, np.ndarray) else repr(data).encode())

    add(load_checkpoint(run / MODEL).state, "model")
    state = load_checkpoint(run / CHECKPOINT).state
    for name in ("model", "optimizer", "scheduler", "average", "random", "loader", "steps"):
        add(state[name], name)
    with (run / "history.csv").open() as file:
        for row in csv.DictReader(file):
            row.pop("seconds")
            add(dict(row), "history")
    return digest.hexdigest()


def _start(run: Path, epochs: int) -> subprocess.Popen[bytes]:
    return _process(run, "train", "--epochs", str(epochs), "--out", str(run), *_SETTINGS)


def _resume(run: Path) -> subprocess.Popen[bytes]:
    return _process(run, "resume", str(run))


def _process(run: Path, *words: str) -> subprocess.Popen[bytes]:
    # To a file: nobody reads a pipe while waiting for the moment to kill.
    with _errors(run).open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tensorgrad", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip


def _errors(run: Path) -> Path:
    return run.with_name(f"{run.name}.errors.txt")


def _finish(process: subprocess.Popen[bytes], run: Path) -> None:
    try:
        process.wait(timeout=_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise TensorgradError(f"training has not ended after {_WAIT:g} s") from None
    _check(process, run, (0,))


def _check(process: subprocess.Popen[bytes], run: Path, expected: tuple[int, ...]) -> None:
    """Raise TensorgradError, with what it printed last, if training ended in another way."""
    if process.returncode not in expected:
        text = _errors(run).read_text(errors="replace").strip()[-500:]
        raise TensorgradError(f"training ended with code {process.returncode}: {text}")


def _killed(run: Path, epochs: int, in_writing: bool, after: float) -> tuple[int | None, bool]:
    """Train in ``run`` and kill the process ``after`` seconds, counted from the first checkpoint.

    in_writing: wait on, until a checkpoint is being written.

    Returns the step of the newest checkpoint, None if training was over by then; and whether one
    was half-written.
    """
    process = _start(run, epochs)
    _await_first_checkpoint(run, process)
    until = time.perf_counter() + after
    while time.perf_counter() < until and process.poll() is None:
        time.sleep(0.001)
    if in_writing:
        while process.poll() is None and not _half_written(run):
            pass
    process.kill()
    process.wait()
    _check(process, run, (0, -signal.SIGKILL))
    if process.returncode == 0:
        return None, False
    written = _half_written(run)  # before anybody tidies up
    return _newest_step(run), written


def _newest_step(run: Path) -> int:
    """The step in which the newest checkpoint of a run was saved."""
    return int(load_newest(run / CHECKPOINT).state["steps"])


def _await_first_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + _WAIT
    while not (run / CHECKPOINT).exists() and process.poll() is None:
        if time.perf_counter() > deadline:
            process.kill()
            raise TensorgradError(f"training has not begun after {_WAIT:g} s")
        time.sleep(0.001)


def _half_written(run: Path) -> bool:
    return any(run.glob(f".{CHECKPOINT}.*.part"))


def _remove(run: Path) -> None:
    _errors(run).unlink(missing_ok=True)
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
