"""Pictures of pixels: what is in the PNG file is what was given."""

from __future__ import annotations

import io

import numpy as np
import pytest

from tensorgrad.errors import ShapeError
from tensorgrad.viz import draw_pictures


def test_pictures_stand_side_by_side() -> None:
    """Rows and columns with a white line between them; what lies beyond 0 and 1 is cut off."""
    image = pytest.importorskip("PIL.Image")
    pictures = np.zeros((2, 3, 4, 5))
    pictures[1, 2] = 0.5
    pictures[0, 0, 0, 0] = 7
    found = np.array(image.open(io.BytesIO(draw_pictures(pictures, zoom=2))))
    assert found.shape == (2 * 9, 2 * 17)
    small = found[::2, ::2]
    assert small[0, 0] == 255
    assert (small[4] == 255).all()
    assert (small[:, [5, 11]] == 255).all()
    assert (small[5:, 12:] == 128).all()
    assert (small[5:, 6:11] == 0).all()
    row = np.array(image.open(io.BytesIO(draw_pictures(pictures[0], zoom=1))))
    np.testing.assert_array_equal(row, small[:4])
    with pytest.raises(ShapeError, match="rows, columns"):
        draw_pictures(np.zeros((4, 5)))
