"""``python -m tensorgrad``: the command line."""

import sys

from tensorgrad.cli import main

sys.exit(main())
