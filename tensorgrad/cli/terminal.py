"""Texts from files and names on their way out: to the terminal, and into CSV files."""

from __future__ import annotations

import os
import re
from typing import Any, TextIO

# Control characters, line separators, marks that turn the direction of writing, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")


def printable(text: str) -> str:
    r"""``text`` in one line that does nothing to a terminal, as "a\x1b[2J" for what clears it.

    A byte of a file name that is no UTF-8, which Python keeps as a lone surrogate, is shown too.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def cell(text: str) -> str:
    """A text for a CSV file that no spreadsheet takes for a formula; numbers stay as they are.

    See OWASP, "CSV injection": what begins with one of these signs gets an apostrophe before it.
    """
    text = printable(text)
    formula = text[:1] in tuple("=+-@＝＋－＠") and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


class Terminal:
    """Standard output or error, to which only harmless text goes.

    Control characters other than tab, line feed and carriage return are written out, and so is
    what its encoding lacks. Once nobody reads any more, or where there never was a stream (it was
    closed), what is written is lost, as the work of a command is more than what it says.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; returns its length. Raises OSError if a disk is full, say."""
        if self._stream is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            clean = _UNPRINTABLE.sub(lambda m: m[0] if m[0] in "\t\n\r" else _escaped(m), text)
            clean = clean.encode(encoding, "backslashreplace").decode(encoding)
            self._try(self._stream.write, clean)
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        if self._stream is not None:
            self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def _try(self, call: Any, *args: Any) -> None:
        try:
            call(*args)
        except OSError as error:
            stream, self._stream = self._stream, None
            _divert(stream)
            if not isinstance(error, BrokenPipeError):
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _divert(stream: Any) -> None:
    """Let what the stream still holds go nowhere: Python would write it at exit, and fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return  # not a file: nothing of it is left to be written


def counted(n: int, what: str) -> str:
    """So many of a thing, as "1 epoch" or "2 epochs"."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")
