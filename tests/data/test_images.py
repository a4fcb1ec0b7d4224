"""Image files: pixels as Pillow and the formats have them, folders of classes, lists of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorgrad.data import (
    DataFileError,
    DataLoader,
    DatasetError,
    ImageFiles,
    image_folder,
    image_list,
    read_image,
)
from tensorgrad.errors import TensorgradError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 4)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (5, 4, 3)).astype(np.uint8)
FACES = Path(__file__).parents[3] / "shared/data/cmu-faces"


@pytest.mark.parametrize("ending", [".png", ".pgm", ".bmp", ".tiff"])
def test_grey(tmp_path: Path, ending: str) -> None:
    """Lossless formats give the pixels that were written."""
    Image.fromarray(GREY).save(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{ending}"), GREY)


def test_colours(tmp_path: Path) -> None:
    """[3, height, width]; as intensities where grey is wanted."""
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), COLOUR.transpose(2, 0, 1))
    found = read_image(tmp_path / "x.png", grey=True)
    np.testing.assert_allclose(found, COLOUR @ [0.299, 0.587, 0.114], atol=1)
    Image.fromarray(COLOUR).save(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg").shape == (3, 5, 4)


def test_text_pgm_with_another_maximum(tmp_path: Path) -> None:
    """The plain form of PGM, scaled from its own maximum to 255."""
    (tmp_path / "x.pgm").write_text("P2\n# made by hand\n3 2\n15\n0 5 10\n15 3 1\n")
    assert read_image(tmp_path / "x.pgm").tolist() == [[0, 85, 170], [255, 51, 17]]


def test_other_modes(tmp_path: Path) -> None:
    """16 bits a pixel, palettes, bilevel, transparency."""
    deep = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").tolist() == [[0, 1, 255]]
    Image.fromarray(COLOUR).quantize(8).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (3, 5, 4)
    Image.fromarray(GREY > 128).save(tmp_path / "two.png")
    assert read_image(tmp_path / "two.png").tolist() == ((GREY > 128) * 255).tolist()
    clear = np.concatenate([COLOUR, np.zeros((5, 4, 1), np.uint8)], axis=2)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert not read_image(tmp_path / "clear.png").any()


def test_size(tmp_path: Path) -> None:
    """Height first, as the axes of an array; the same size is left as it is."""
    Image.fromarray(np.full((8, 6), 77, np.uint8)).save(tmp_path / "x.png")
    found = read_image(tmp_path / "x.png", size=(3, 2))
    assert found.shape == (3, 2)
    assert (found == 77).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three images each, one of them in a folder below."""
    for label, value in (("cat", 10), ("dog", 200)):
        for i in range(3):
            place = tmp_path / "pets" / label / ("more" if i == 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 3), value + i, np.uint8)).save(place / f"{i}.png")
    (tmp_path / "pets/cat/notes.txt").write_text("not an image")
    (tmp_path / "pets/.hidden").mkdir()
    return tmp_path / "pets"


def test_folder_of_classes(folder: Path) -> None:
    """The classes are the folders, by name; images are read when asked for."""
    data = image_folder(folder)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    image, label = data[4]
    assert image.dtype == np.float32
    assert image[0, 0] == np.float32(201 * np.float32(1 / 255))
    assert label == 1
    images, labels = data.load()
    assert images.shape == (6, 4, 3)
    assert images.dtype == np.uint8
    assert labels.tolist() == data.labels.tolist()
    (batch, kinds), *_ = DataLoader(data, 4)
    assert batch.shape == (4, 4, 3)
    assert kinds.tolist() == [0, 0, 0, 1]
    assert image_folder(folder, classes=["dog", "cat"]).labels.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 2, "processes": True}])
def test_decoded_by_workers(folder: Path, options: dict[str, Any]) -> None:
    """The same batches."""
    data = image_folder(folder)
    plain = [[part.numpy() for part in batch] for batch in DataLoader(data, 4, True, seed=1)]
    batches = DataLoader(data, 4, True, seed=1, **options)
    for expected, batch in zip(plain, batches, strict=True):
        for a, b in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(a, b.numpy())


def test_folder_refused(folder: Path, tmp_path: Path) -> None:
    """What is missing, and where."""
    (folder / "bird").mkdir()
    with pytest.raises(DatasetError, match="bird: no images"):
        image_folder(folder)
    with pytest.raises(DatasetError, match="bird is none of the classes"):
        image_folder(folder, classes=["cat", "dog"])
    with pytest.raises(DatasetError, match=r"two classes or more; it holds 2\.png"):
        image_folder(folder / "dog" / "more")
    Image.fromarray(GREY).save(folder / "bird" / "x.png")
    with pytest.raises(DataFileError, match="give a common size"):
        image_folder(folder).load()
    assert image_folder(folder, size=(6, 6)).load()[0].shape == (7, 6, 6)
    Image.fromarray(COLOUR).save(folder / "bird" / "x.png")
    with pytest.raises(DataFileError, match="grey=True"):
        image_folder(folder, size=(4, 3)).load()
    assert image_folder(folder, (4, 3), grey=True).load()[0].shape == (7, 4, 3)


def test_list(folder: Path, tmp_path: Path) -> None:
    """Names with classes, names whose class is a part of them, names found in folders below."""
    path = tmp_path / "list.txt"
    path.write_text("# pets\npets/cat/0.png, cat\n\npets/dog/1.png\tdog\npets/dog/0.png dog\n")
    data = image_list(path)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    path.write_text("cat/0.png\ndog/1.png\n")
    assert image_list(path, folder, "(cat|dog)").labels.tolist() == [0, 1]
    (folder / "dog/1.png").rename(folder / "dog/rex_dog_1.png")
    path.write_text("rex_dog_1.png\n")
    assert image_list(path, folder, "_(cat|dog)_", classes=["cat", "dog"]).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ("", {}, "the list is empty"),
        ("cat/0.png", {}, "line 1 has no class"),
        ("cat/9.png,cat", {}, "line 1: cat/9.png is not in"),
        ("x/0.png,cat", {}, "there 2 times below"),
        ("cat/0.png", {"pattern": "_(a|b)_"}, "does not occur"),
        ("cat/0.png", {"pattern": "cat"}, "must have one group"),
        ("cat/0.png", {"pattern": "("}, "not a regular expression"),
        ("cat/0.png,bird", {"classes": ["cat"]}, "bird is none of the classes cat"),
    ],
)
def test_list_refused(
    folder: Path, tmp_path: Path, line: str, options: dict[str, Any], message: str
) -> None:
    """With the line."""
    path = tmp_path / "list.txt"
    path.write_text(line)
    with pytest.raises(DatasetError if "none of" in message else ValueError, match=message):
        image_list(path, folder, **options)


def test_labels_must_fit() -> None:
    """As many labels as files, within the classes."""
    for paths, labels in (([], []), (["a"], [0, 1]), (["a"], [2])):
        with pytest.raises(DatasetError):
            ImageFiles(paths, labels, ["x", "y"])


def test_without_pillow(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The error names what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(TensorgradError, match="pip install pillow"):
        image_folder(folder).load()


@pytest.mark.skipif(not FACES.is_dir(), reason="the faces are not there")
def test_faces() -> None:
    """The course's lists name files that lie in folders below."""
    parts = [
        image_list(file, FACES / "faces_4", "_(left|right|straight|up)_")
        for file in sorted(FACES.glob("splits/all_*"))
    ]
    assert sorted(map(len, parts)) == [139, 208, 277]
    images, _ = parts[0].load()
    assert images.shape[1:] == (30, 32)
