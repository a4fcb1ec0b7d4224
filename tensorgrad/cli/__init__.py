"""The command line: ``tensorgrad train`` and ``tensorgrad info``."""

from tensorgrad.cli.main import main

__all__ = ["main"]
