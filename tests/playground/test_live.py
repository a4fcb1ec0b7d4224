"""The live page of training on the playground's server."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tensorgrad.cli.main import main
from tensorgrad.playground.live import LivePage, served
from tensorgrad.playground.server import Reply


def events(address: str) -> tuple[http.client.HTTPConnection, Any]:
    """A reader of the page at this address."""
    found = re.search(r"http://(127\.0\.0\.1:\d+)(/\?token=.*)", address)
    assert found is not None
    with closing(http.client.HTTPConnection(found[1], timeout=60)) as first:
        first.request("GET", found[2])
        cookie = (first.getresponse().getheader("Set-Cookie") or "").split(";")[0]
    connection = http.client.HTTPConnection(found[1], timeout=60)
    connection.request("GET", "/events", headers={"Cookie": cookie})
    return connection, connection.getresponse()


def pages(answer: Any) -> Any:
    lines = iter(answer.readline, b"")
    return (json.loads(line[6:])["html"] for line in lines if line.startswith(b"data: "))


def test_what_is_written_is_shown_and_the_last_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    with served(path, 0) as address:
        connection, answer = events(address)
        found = pages(answer)
        path.write_text("<p>one</p>")
        assert next(found) == "<p>one</p>"
        path.write_text("<p>two</p>")
    assert list(found) == ["<p>two</p>"]
    answer.close()
    connection.close()


def test_the_curves_keep_their_styles_and_run_no_scripts(tmp_path: Path) -> None:
    answer = LivePage(tmp_path / "live.html").reply("GET", "/", {}, b"")
    assert isinstance(answer, Reply)
    policy = dict(answer.headers)["Content-Security-Policy"]
    assert "style-src 'unsafe-inline';" in policy
    assert re.search(r"script-src 'sha256-[^ ]+';", policy)


def test_without_a_reader_it_ends_at_once(tmp_path: Path) -> None:
    with served(tmp_path / "live.html", 0) as address:
        assert address.startswith("http://127.0.0.1:")


def test_a_training_run_is_seen_to_its_end(tmp_path: Path) -> None:
    options = ["--live-port", "0", "--epochs", "2", "--hidden", "8", "--no-compile"]
    command = [sys.executable, "-m", "tensorgrad", "train", *options]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        connection, answer = events(process.stdout.readline())
        (*_, last) = pages(answer)
        answer.close()
        connection.close()
        said = process.stdout.read()
    assert process.wait(60) == 0, said
    assert "ended after epoch 2" in last
    assert last == (tmp_path / "runs" / "digits-1" / "live.html").read_text()


def test_a_run_that_is_resumed_is_told_to_be_looked_at_in_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--resume", "runs/x", "--live-port", "0"]) == 2
    assert "open live.html" in capsys.readouterr().err
