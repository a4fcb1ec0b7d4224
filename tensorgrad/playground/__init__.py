"""The playground: a page on which a small network learns while one watches.

``Session`` is the state machine, ``serve`` shows it to a browser on this machine.
"""

from tensorgrad.playground.datasets import make_data
from tensorgrad.playground.errors import PlaygroundError
from tensorgrad.playground.session import Session
from tensorgrad.playground.settings import Settings, from_fragment

__all__ = ["PlaygroundError", "Session", "Settings", "from_fragment", "make_data"]
