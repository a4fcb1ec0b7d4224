"""``tensorgrad playground`` from the shell."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tensorgrad.cli.main import main


@pytest.mark.usefixtures("interruptible")
def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "a,b,c\n" + "".join(f"{k},{k % 5},{k}.5\n" for k in range(20))
    )
    command = [sys.executable, "-m", "tensorgrad", "playground", "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data", "own.csv"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://(127\.0\.0\.1:\d+)(/\?token=\S+)", process.stdout.readline())
        assert found is not None
        with closing(http.client.HTTPConnection(found[1], timeout=60)) as browser:
            browser.request("GET", found[2])
            assert browser.getresponse().status == 303
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert said == "tensorgrad playground: interrupted\n"


def test_what_cannot_be_served_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "own.csv"
    table.write_text("a,b\n1,2\n")
    (tmp_path / "odd.csv").write_bytes(b"a,b\n\xff\n")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--data", str(table)], "two columns of numbers"),
            (["--data", str(tmp_path / "none.csv")], "No such file"),
            (["--data", str(tmp_path / "odd.csv")], "UTF-8"),
            (["--port", port], "is in use"),
            (["--port", "70000"], "0 to 65535"),
        ):
            assert main(["playground", "--no-browser", *options]) == 2
            error = capsys.readouterr().err
            assert said in error
            assert error.count("\n") == 1
