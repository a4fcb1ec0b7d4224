"""The command line: what was typed becomes a call of a command, errors a line and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tensorgrad.cli.commands import COMMANDS
from tensorgrad.cli.terminal import Terminal


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from tensorgrad import __version__

    parser = _Parser(
        prog="tensorgrad",
        description="A tensor engine with automatic differentiation.",
        epilog="tensorgrad COMMAND --help says more, by example. Exit codes: 0; 1 training or a "
        "check failed; 2 wrong input; 130 Ctrl-C.",
    )
    parser.add_argument(
        "--version", action="version", version=f"tensorgrad {__version__}",
        help="show the version and leave",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0; 1 if training or a check failed; 2 for wrong input; 130 after Ctrl-C.

    argv: the words after the program's name; those of this process if None.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Terminal(sys.stdout), Terminal(sys.stderr)
    try:
        return _run(argv)
    finally:
        sys.stdout, sys.stderr = before


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could come next
        import argcomplete

        argcomplete.autocomplete(parser)
    try:
        args = vars(parser.parse_args(argv))
    except SystemExit as leave:  # --help, or an error already printed
        return leave.code if isinstance(leave.code, int) else 2
    command = args.pop("command")
    from tensorgrad.errors import TensorgradError

    try:
        code = next(row for row in COMMANDS if row.name == command)(**args)
        sys.stdout.flush()
    except (TensorgradError, OSError, MemoryError) as error:
        text = " ".join(_said(error).split()) or type(error).__name__
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
        print(f"tensorgrad {command}: error: {text}", file=sys.stderr)
        return 1 if isinstance(error, ArithmeticError) else 2  # TrainingError is one
    except KeyboardInterrupt as interruption:
        text = " ".join(map(str, interruption.args)) or "interrupted"
        print(f"tensorgrad {command}: {text}", file=sys.stderr)
        return 130
    return code


_LONGEST = 1000  # characters of an error: names may be long, and classes many
_REMEDIES = {
    errno.ENOENT: "; check the name",
    errno.EACCES: "; change its permissions, or take another",
    errno.EISDIR: "; name a file in it",
    errno.ENOTDIR: "; a part of the path is a file",
    errno.ENAMETOOLONG: "; take a shorter one",
    errno.ENOSPC: "; make room on the disk",
}


def _said(error: Exception) -> str:
    """What an error says, without the number that the system gives it."""
    if not isinstance(error, OSError) or error.strerror is None or error.errno is None:
        return str(error)
    name = error.filename if error.filename2 is None else error.filename2
    where = "" if name is None else f"{os.fsdecode(name) if not isinstance(name, int) else name}: "
    return f"{where}{error.strerror}{_REMEDIES.get(error.errno, '')}"
