"""Damaged files again, damaged otherwise in each run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from data.test_fuzz import READERS, damaged

from tensorgrad.data import DataFileError, DatasetError
from tensorgrad.training import CheckpointError


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("kind", READERS)
def test_other_damage_each_time(kind: str, tmp_path: Path) -> None:
    """Seeds that nobody has tried; that of what fails is printed."""
    make, read = READERS[kind]
    whole = make(tmp_path)
    path = tmp_path / "damaged.bin"
    for _ in range(3000):
        seed = random.SystemRandom().randrange(10**9)
        path.write_bytes(damaged(whole, seed))
        try:
            read(path)
        except (DataFileError, DatasetError, CheckpointError):
            continue
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                continue
            print(f"seed {seed}")
            raise
