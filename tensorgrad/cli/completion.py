"""``tensorgrad completion``: what makes the shell complete commands and options."""

from __future__ import annotations

from tensorgrad.errors import TensorgradError


def completion(shell: str) -> None:
    """Print the script for "bash", "zsh" or "fish". Raises TensorgradError without argcomplete."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise TensorgradError(
            "completion is done by argcomplete, which is not installed; pip install argcomplete"
        ) from error
    print(shellcode(["tensorgrad"], shell=shell))
