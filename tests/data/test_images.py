"""Image files: pixels as Pillow and the formats have them, folders of classes, lists of files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
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
    assert (read_image(tmp_path / "clear.png") == 255).all()


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
    with pytest.raises(DataFileError, match=r"grey=True \(--grey\) or grey=False \(--no-grey"):
        image_folder(folder, size=(4, 3)).load()
    assert image_folder(folder, (4, 3), grey=True).load()[0].shape == (7, 4, 3)
    assert image_folder(folder, (4, 3), grey=False).load()[0].shape == (7, 3, 4, 3)


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


def chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(
    path: Path,
    size: tuple[int, int],
    rows: bytes,
    bits: int = 8,
    colour: int = 0,
    interlaced: int = 0,
    extra: tuple[bytes, bytes] | None = None,
    late: bool = False,
) -> Path:
    """A PNG file with the bytes ``rows``, filter types and all, whether they suit it or not."""
    between = b"" if extra is None else chunk(*extra)
    head = struct.pack(">IIBBBBB", size[1], size[0], bits, colour, 0, 0, interlaced)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + (b"" if late else between)
        + chunk(b"IDAT", zlib.compress(rows)) + (between if late else b"") + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


CORNER = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
UPRIGHT = [
    CORNER, CORNER[:, ::-1], CORNER[::-1, ::-1], CORNER[::-1], CORNER.T, CORNER[::-1].T,
    CORNER[::-1, ::-1].T, CORNER.T[::-1],
]  # fmt: skip


@pytest.mark.parametrize("ending", [".png", ".tiff", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    """Upright, as the camera says (EXIF 2.32, tag 0x0112), before it is resized."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == ".webp" else {"quality": 100}
    picture = Image.fromarray(np.kron(CORNER * 40, np.ones((8, 8), np.uint8)))
    picture.save(tmp_path / f"x{ending}", exif=exif, **options)
    found = read_image(tmp_path / f"x{ending}", grey=True)
    expected = np.kron(UPRIGHT[orientation - 1] * 40, np.ones((8, 8), np.uint8))
    np.testing.assert_allclose(found, expected, atol=6)
    size = UPRIGHT[orientation - 1].shape
    small = read_image(tmp_path / f"x{ending}", size, grey=True)
    np.testing.assert_allclose(small, UPRIGHT[orientation - 1] * 40, atol=40)


def test_orientation_behind_the_pixels_or_damaged(tmp_path: Path) -> None:
    """PNG may have it there; what cannot be read says nothing."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    rows = bytes([0, 255, 0, 0]) + bytes([0, 0, 0, 9])
    path = png(tmp_path / "x.png", (2, 3), rows, extra=(b"eXIf", exif), late=True)
    assert read_image(path).tolist() == [[0, 255], [0, 0], [9, 0]]
    path = png(tmp_path / "x.png", (2, 3), rows, extra=(b"eXIf", exif[:13] + b"\xff\xff"))
    assert read_image(path).tolist() == [[255, 0, 0], [0, 0, 9]]


def test_transparency(tmp_path: Path) -> None:
    """Laid on white, whatever says what is transparent; grey stays grey."""
    grey_and_alpha = np.array([[[200, 255], [200, 0]], [[100, 128], [7, 255]]], np.uint8)
    Image.fromarray(grey_and_alpha).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").tolist() == [[200, 255], [177, 7]]
    colours = np.dstack([grey_and_alpha[..., :1]] * 3 + [grey_and_alpha[..., 1:]])
    for ending in (".png", ".tiff"):
        Image.fromarray(colours).save(tmp_path / f"rgba{ending}")
        found = read_image(tmp_path / f"rgba{ending}")
        assert found.tolist() == [[[200, 255], [177, 7]]] * 3
        assert read_image(tmp_path / f"rgba{ending}", grey=True).tolist() == [[200, 255], [177, 7]]
    of_grey = png(
        tmp_path / "grey.png", (1, 3), bytes([0, 200, 7, 9]), extra=(b"tRNS", bytes([0, 7]))
    )
    assert read_image(of_grey).tolist() == [[200, 255, 9]]
    of_colours = png(
        tmp_path / "colours.png", (1, 2), bytes([0, 1, 2, 3, 4, 5, 6]), colour=2,
        extra=(b"tRNS", bytes([0, 4, 0, 5, 0, 6])),
    )  # fmt: skip
    assert read_image(of_colours).tolist() == [[[1, 255]], [[2, 255]], [[3, 255]]]
    deep = png(
        tmp_path / "deep.png", (1, 2), b"\0" + struct.pack(">2H", 65535, 514), 16,
        extra=(b"tRNS", struct.pack(">H", 65535)),
    )  # fmt: skip
    assert read_image(deep).tolist() == [[255, 2]]
    two = png(
        tmp_path / "two.png", (1, 8), bytes([0, 0b11110000]), 1, extra=(b"tRNS", bytes([0, 0]))
    )
    assert (read_image(two) == 255).all()
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    for ending in (".png", ".gif"):
        palette.save(tmp_path / f"p{ending}", transparency=1)
        found = read_image(tmp_path / f"p{ending}")
        assert found.tolist() == [[[10, 255]], [[20, 255]], [[30, 255]]]


def test_black_strokes_on_a_transparent_ground_are_seen(tmp_path: Path) -> None:
    """Not black on black, whether they are grey, in colours or of a palette."""
    strokes = np.zeros((5, 4, 4), np.uint8)
    strokes[1:4, 2, 3] = 255
    drawing = Image.fromarray(strokes)
    palette = Image.new("P", (4, 5), 1)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.paste(0, (2, 1, 3, 4))
    drawing.save(tmp_path / "rgba.png")
    drawing.convert("LA").save(tmp_path / "la.png")
    palette.save(tmp_path / "p.png", transparency=1)
    for name in ("rgba.png", "la.png", "p.png"):
        found = read_image(tmp_path / name, grey=True)
        np.testing.assert_array_equal(found, 255 - strokes[..., 3])


@pytest.mark.parametrize("dtype", ["<i4", "<u4", "<i2", "<f4"])
def test_tiff_of_numbers_without_a_range(tmp_path: Path, dtype: str) -> None:
    """Floats from 0 to 1 are; anything else is refused, not black or white without a word."""
    path = tmp_path / "x.tiff"
    if dtype == "<f4":
        Image.fromarray(np.array([[0, 0.25, 0.5, 1]], dtype)).save(path)
        assert read_image(path).tolist() == [[0, 64, 128, 255]]
        Image.fromarray(np.array([[0, np.nan]], dtype)).save(path)
        with pytest.raises(DataFileError, match="floats from nan"):
            read_image(path)
        Image.fromarray(np.array([[0, 200.5]], dtype)).save(path)
        with pytest.raises(DataFileError, match=r"floats from 0.0 to 200\.5"):
            read_image(path)
        return
    values = np.array([0, 64, 70000 if dtype[2] == "4" else 3000], dtype)
    tags = [(256, 3, 3), (257, 3, 1), (258, 3, 8 * values.itemsize), (259, 3, 1), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 3, 1), (279, 4, values.nbytes),
            (339, 3, 1 if dtype[1] == "u" else 2)]  # fmt: skip
    content = struct.pack("<2sHI", b"II", 42, 8 + values.nbytes) + values.tobytes()
    content += struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(content + struct.pack("<I", 0))
    with pytest.raises(DataFileError, match=r"integers from 0 to (70000|3000), of"):
        read_image(path)


def test_16_bits(tmp_path: Path) -> None:
    """Every value to the nearest of 256: 65535 is white, in PNG, TIFF and PGM."""
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(deep / 257).astype(np.uint8)
    for ending in (".png", ".tiff", ".pgm"):
        Image.fromarray(deep).save(tmp_path / f"x{ending}")
        np.testing.assert_array_equal(read_image(tmp_path / f"x{ending}"), expected)


@pytest.mark.parametrize(
    ("bits", "colour", "interlaced"),
    [(8, 0, 0), (1, 0, 0), (16, 0, 0), (8, 2, 0), (4, 3, 0), (8, 4, 0), (16, 6, 0), (8, 0, 1),
     (2, 0, 1), (8, 2, 1)],
)  # fmt: skip
def test_png_with_too_few_rows(tmp_path: Path, bits: int, colour: int, interlaced: int) -> None:
    """Refused; one that is whole is not, black or not."""
    across, down = 13, 11
    pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                  (1, 0, 2, 2), (0, 1, 1, 2)]  # fmt: skip
    lengths = [
        1 + (len(range(x, across, dx)) * pixel + 7) // 8
        for x, y, dx, dy in passes
        for _ in range(y, down, dy)
    ]
    extra = (b"PLTE", bytes(48)) if colour == 3 else None
    for value in (0, 0x11):
        rows = b"".join(b"\0" + bytes([value]) * (n - 1) for n in lengths)
        path = png(tmp_path / "x.png", (down, across), rows, bits, colour, interlaced, extra)
        assert read_image(path).shape[-2:] == (down, across)
        for missing in (lengths[-1], sum(lengths[5:])):
            short = rows[: len(rows) - missing]
            png(tmp_path / "x.png", (down, across), short, bits, colour, interlaced, extra)
            with pytest.raises(DataFileError, match=r"bytes of pixels are there|damaged"):
                read_image(tmp_path / "x.png")


@pytest.mark.parametrize(("bits", "colour"), [(16, 0), (8, 2), (8, 6)])
def test_memory_of_a_small_file_with_many_pixels(tmp_path: Path, bits: int, colour: int) -> None:
    """The most pixels that are taken cost less than 1 GB; one row more is not decoded."""
    rows = bytes(8192 * (1 + 8192 * bits // 8 * {0: 1, 2: 3, 6: 4}[colour]))
    path = png(tmp_path / "x.png", (8192, 8192), rows, bits, colour)
    assert path.stat().st_size < 300_000
    program = (
        "import resource, sys\nfrom tensorgrad.data import read_image\n"
        "read_image(sys.argv[1], (8, 8))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert int(done.stdout) < 1_000_000  # KiB
    png(path, (8193, 8192), b"")
    with pytest.raises(DataFileError, match=r"8192 x 8193 pixels, more than 2\*\*26"):
        read_image(path)
