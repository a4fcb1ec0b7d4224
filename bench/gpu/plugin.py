"""A plugin for pytest: what each test did, as lines of JSON, as it ends.

Goes with ``-p bench.gpu.plugin``. With xdist it works in the workers (which note the kernels that a
test launched) and in the process that they report to (which writes).
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import launched

_file: Any = None
_done: frozenset[str] = frozenset()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the campaign."""
    group = parser.getgroup("campaign")
    group.addoption("--campaign-log", help="file that lines of JSON are added to")
    group.addoption("--campaign-done", help="file with the tests to be left out, one a line")
    group.addoption("--campaign-device", help="the default device")
    group.addoption("--campaign-rehearse", action="store_true", help="on the stand-in for CuPy")
    group.addoption("--campaign-plant", action="append", default=[], help="a fault")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the tests ask which devices there are."""
    options: Any = early_config.known_args_namespace
    if options.campaign_rehearse:
        from bench.gpu import rehearsal

        rehearsal.install(options.campaign_plant)
    launched.note()
    if options.campaign_device:
        from tensorgrad.backend import set_default_device

        set_default_device(options.campaign_device)


def pytest_configure(config: pytest.Config) -> None:
    """Open the file that this process writes to."""
    global _file, _done
    if config.getoption("campaign_done"):
        _done = frozenset(Path(config.getoption("campaign_done")).read_text().splitlines())
    if config.getoption("campaign_log") and not hasattr(config, "workerinput"):
        _file = Path(config.getoption("campaign_log")).open("a", encoding="utf-8")  # noqa: SIM115


def pytest_unconfigure() -> None:
    """Close it."""
    if _file is not None:
        _file.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what an earlier process has done."""
    left_out = [item for item in items if item.nodeid in _done]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in _done]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    """Add the kernels that a test launched to what is reported of it."""
    names = launched.taken()
    if call.when == "call":
        item.user_properties.append(("kernels", names))
    return (yield)


def _write(**line: Any) -> None:
    if _file is not None:
        _file.write(json.dumps(line) + "\n")
        _file.flush()


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins, in this process or in a worker."""
    _write(begin=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test, or what is made for it, ended."""
    found = dict(report.user_properties)
    if report.when == "call" or report.outcome != "passed":
        why = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            why = report.longrepr[2]
        elif report.outcome == "failed":
            why = report.longreprtext[-3000:]
        _write(
            test=report.nodeid, when=report.when, outcome=report.outcome, why=why,
            kernels=found.get("kernels", []),
        )  # fmt: skip


def pytest_runtest_logfinish(nodeid: str) -> None:
    """All of a test is over."""
    _write(end=nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file could not be read."""
    if report.outcome == "failed":
        _write(
            test=report.nodeid, when="collect", outcome="failed", why=report.longreprtext[-3000:],
            kernels=[],
        )  # fmt: skip
