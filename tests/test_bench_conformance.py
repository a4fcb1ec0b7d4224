"""``python -m bench.conformance``: figures of suites and libraries of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import conformance

REPORT = """<?xml version="1.0"?><testsuites><testsuite tests="4">
<testcase classname="array_api_tests.test_a" name="test_one[f]" />
<testcase classname="array_api_tests.test_a" name="test_two"><failure message="no">x</failure>
</testcase>
<testcase classname="array_api_tests.test_b" name="test_three"><skipped message="old" /></testcase>
<testcase classname="array_api_tests.test_b" name="test_four"><error message="bad" /></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    found = conformance.read_report(REPORT)
    assert (found.total, found.passed) == (4, 1)
    assert found.failed == {"test_a::test_two": "no", "test_b::test_four": "bad"}
    assert found.skipped == {"test_b::test_three": "old"}
    found.show("suite")
    assert capsys.readouterr().out.splitlines() == [
        "suite: 1 of 4 passed, 2 failed, 1 skipped",
        "  failed: test_a::test_two: no",
        "  failed: test_b::test_four: bad",
        "  skipped: test_b::test_three: old",
    ]


def test_a_suite_is_run_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no folder array_api_tests"):
        conformance.main(["array-api", "--source", str(tmp_path)])
    tests = tmp_path / "array_api_tests"
    tests.mkdir()
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--max-examples')\n"
        "    parser.addoption('--disable-deadline', action='store_true')\n"
    )
    (tests / "test_one.py").write_text(
        "import importlib, os\n"
        "def test_module(request):\n"
        "    module = importlib.import_module(os.environ['ARRAY_API_TESTS_MODULE'])\n"
        "    assert module.asarray([1.0]).shape == (1,)\n"
        "    assert os.environ['ARRAY_API_TESTS_VERSION'] == '2024.12'\n"
        "    assert request.config.getoption('--max-examples') == '3'\n"
        "def test_wrong():\n"
        "    raise ValueError\n"
        "def test_left_out():\n"
        "    raise ValueError\n"
    )
    given = ["array-api", "--source", str(tmp_path), "--version", "2024.12", "--examples", "3"]
    assert conformance.main([*given, "--only", "module or wrong"]) == 1
    assert "1 of 2 passed, 1 failed" in capsys.readouterr().out


def test_calls_are_compared() -> None:
    def refuses(x: Any) -> Any:
        raise TypeError("no tensors")

    calls = {"same": lambda x: x + 1, "other": lambda x: x * 2, "none": refuses}
    found = conformance.compared(calls, [np.ones(2)], lambda call: call(np.ones(2)) * 0 + 2.0)
    assert found.passed == 2
    assert list(found.skipped) == ["none"]
    wrong = conformance.compared({"one": lambda x: x}, [np.ones(2)], lambda call: np.zeros(2))
    assert list(wrong.failed) == ["one"]
