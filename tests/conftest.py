"""Shared fixtures: the devices that are there, and numbers that are the same in every run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import hypothesis
import numpy as np
import pytest

from tensorgrad import dtypes, special  # noqa: F401 (its rows enter the table)
from tensorgrad.backend import cuda_is_available, kernels, set_default_device
from tensorgrad.nn import functional  # noqa: F401 (its rows enter the table)
from tensorgrad.ops.random import default_generator

if "TENSORGRAD_TEST_KERNELS" in os.environ:  # sources with a planted bug: see kernels/mutate.py
    _other = Path(os.environ["TENSORGRAD_TEST_KERNELS"])
    kernels.folder = lambda: _other

# What the tests shall not find, though it is installed: see mutate_engine.py.
for _name in filter(None, os.environ.get("TENSORGRAD_TESTS_WITHOUT", "").split(",")):
    sys.modules[_name] = None  # type: ignore[assignment]

# How far the property tests explore. By default little, and the same in each run; continuous
# integration takes --hypothesis-profile=thorough besides, more of the same in each run; -m nightly
# draws anew, and prints how to reproduce what fails.
for _name, _examples, _fixed in (
    ("repeatable", 60, True), ("thorough", 300, True), ("nightly", 5000, False),
):  # fmt: skip
    hypothesis.settings.register_profile(
        _name, max_examples=_examples, derandomize=_fixed, deadline=None, database=None,
        print_blob=not _fixed,
    )  # fmt: skip
hypothesis.settings.load_profile("repeatable")

DEVICES = ["cpu"]
if cuda_is_available():
    DEVICES.append("cuda")


@pytest.fixture(
    params=[pytest.param(d, marks=pytest.mark.gpu) if d == "cuda" else d for d in DEVICES]
)
def device(request: pytest.FixtureRequest) -> str:
    """Each device that is there in turn: a test body is written once and runs on all of them."""
    name: str = request.param
    return name


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the name of the test and on nothing else."""
    return np.random.default_rng(crc32(request.node.name.encode()))


@pytest.fixture
def defaults() -> Iterator[None]:
    """For tests that change the default dtype or device: puts both back."""
    before = dtypes.get_default_dtype()
    yield
    dtypes.set_default_dtype(before)
    set_default_device(None)


@pytest.fixture
def own_random_numbers() -> Iterator[None]:
    """For tests that draw from the default generator or seed it: puts it back."""
    before = default_generator.state()
    yield
    default_generator.set_state(before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def empty_folder(own_random_numbers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For tests that run commands: in an empty folder, with random numbers of their own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Generators begin anew, the module's, the default one and PyTorch's.

    So what a test sees does not depend on which ones ran before it.
    """
    seed = crc32(item.nodeid.encode())
    fresh = np.random.default_rng(seed).bit_generator.state
    for value in vars(getattr(item, "module", item)).values():
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = fresh
    default_generator.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def pytest_configure(config: pytest.Config) -> None:
    """The profile that ``-m nightly`` stands for."""
    if "nightly" in config.getoption("markexpr"):
        hypothesis.settings.load_profile("nightly")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark property tests; leave slow tests out unless a marker expression speaks of them."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("nightly")
    if any(word in config.getoption("markexpr") for word in ("slow", "nightly")):
        return
    reason = pytest.mark.skip(reason="slow; run with -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(reason)
