"""Where the weights lie that others packed as Python packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str) -> Path:
    """The folder of an installed package, which is not imported.

    Raises SystemExit, with the command that installs it, if it is not there.
    """
    found = find_spec(package)
    if found is None or found.origin is None:
        name = package.replace("_", "-")
        raise SystemExit(f"{name} is not installed: pip install --no-deps {name}")
    return Path(found.origin).parent
