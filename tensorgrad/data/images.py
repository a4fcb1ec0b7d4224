"""Images in files: folders of classes, or a list of files. They are decoded by Pillow."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy import ndarray

from tensorgrad.data.datasets import Arrays, DatasetError
from tensorgrad.errors import TensorgradError
from tensorgrad.files import DataFileError, open_regular, read_whole

#: The endings of files that are taken for images in a folder of classes.
SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".pgm",
    ".ppm",
    ".pnm",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
)
_MOST_PIXELS = 1 << 26  # of one image; a header that claims more is not believed


def read_image(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
) -> ndarray[Any, Any]:
    """The image in a file (PNG, JPEG, PGM and what else Pillow reads), uint8.

    size: (height, width) in pixels to which it is resized; its own if None.
    grey: True converts colours to intensities (ITU-R 601-2 luma), False shades of grey to colours;
        None takes the image as it is.

    Returns [height, width] for an image in shades of grey, [3, height, width] in colours, upright
    as its EXIF data says. What is transparent is laid on white, the usual ground of drawings and of
    pages; 16 bits a pixel, and floats from 0 to 1, are brought to 8.

    Raises OSError if the file cannot be opened, DataFileError for one that is torn, altered, no
    image, larger than 2**26 pixels (which is known before they are decoded), or of 32-bit numbers
    in another range; TensorgradError if Pillow is not installed.
    """
    path = Path(path)
    image = _library()
    with open_regular(path) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of what is refused below
                with image.open(file) as picture:
                    if picture.width * picture.height > _MOST_PIXELS:
                        raise DataFileError(
                            path,
                            f"{picture.width} x {picture.height} pixels, more than 2**26",
                            "reduce it before training",
                        )
                    picture.load()
                    if picture.format == "PNG":
                        _check_png(file, picture)
                    return _pixels(path, picture, size, grey)
        except DataFileError:
            raise
        except Exception as error:  # a decoder that meets damage raises whatever it stumbles over
            raise DataFileError(
                path,
                f"not an image, or damaged ({' '.join(str(error).split())[:120]})",
                "replace it, or take it out of the folder",
            ) from error


def _library() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise TensorgradError(
            "images are decoded by Pillow, which is not installed; pip install pillow"
        ) from error
    return Image


def _pixels(
    path: Path, picture: Any, size: tuple[int, int] | None, grey: bool | None
) -> ndarray[Any, Any]:
    turn = _TURNS.get(_orientation(picture))
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _eight_bits(path, picture)
    elif picture.has_transparency_data:
        picture = _on_white(picture)
    shades = picture.mode in ("1", "L") if grey is None else grey
    picture = _in_mode(picture, "L" if shades else "RGB")
    if turn is not None:
        picture = picture.transpose(_library().Transpose[turn])
    if size is not None and (picture.height, picture.width) != tuple(size):
        picture = picture.resize((size[1], size[0]), _library().Resampling.BILINEAR)
    if picture.mode == "L":
        return np.array(picture, np.uint8)
    return np.stack([np.asarray(band) for band in picture.split()])


def _in_mode(picture: Any, mode: str) -> Any:
    """Converted; Pillow's ``convert`` copies an image that is in the mode already."""
    return picture if picture.mode == mode else picture.convert(mode)


#: Orientation in the EXIF data -> what brings the image upright.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _orientation(picture: Any) -> Any:
    """What the EXIF data says of it; None if it says nothing, or is damaged: it is no pixel."""
    try:
        return picture.getexif().get(0x0112)
    except Exception:  # as in decoding
        return None


def _eight_bits(path: Path, picture: Any) -> Any:
    """An image of more than 8 bits a pixel, all in shades of grey, as one of 8."""
    values = np.asarray(picture)
    found = np.empty(values.shape, np.uint8)
    deep = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")
    clear = picture.info.get("transparency")
    for start in range(0, len(values), 64):  # by parts: wide numbers take eight times the memory
        rows = values[start : start + 64]
        if picture.mode == "F" and rows.min() >= 0 and rows.max() <= 1:
            found[start : start + 64] = rows * 255 + 0.5
        elif picture.mode != "F" and deep:
            found[start : start + 64] = np.where(
                rows == (-1 if clear is None else clear), 255, (rows.astype(np.int64) + 128) // 257
            )
        else:
            raise DataFileError(
                path,
                f"{'floats' if picture.mode == 'F' else 'integers'} from {rows.min()} to "
                f"{rows.max()}, of which black and white are not known",
                "save the image in 8 or 16 bits, or as floats from 0 to 1, or use an .npz file",
            )
    return _library().fromarray(found)


def _on_white(picture: Any) -> Any:
    """A transparent image laid on white: c a + 255 (1 - a)."""
    from PIL import ImageChops

    shades = picture.mode in ("1", "L", "LA", "La")
    picture = _in_mode(picture, "LA" if shades else "RGBA")
    alpha = picture.getchannel("A")
    ground = ImageChops.invert(alpha)
    bands = [
        ImageChops.add(ImageChops.multiply(picture.getchannel(name), alpha), ground)
        for name in picture.getbands()[:-1]
    ]
    return bands[0] if shades else _library().merge("RGB", bands)


# Of Adam7: the first column and row of each pass, and the steps between them.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip


def _check_png(file: BinaryIO, picture: Any) -> None:
    """Raise ValueError if a PNG file holds fewer rows than it says (ISO 15948, 7.2 and 8).

    Pillow gives zeros for those that are missing, so only where the last row is zeros, or the file
    is interlaced, are the rows counted.
    """
    file.seek(16)
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    if not interlaced and np.asarray(picture.crop((0, height - 1, width, height))).any():
        return
    pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    wanted = 0
    for x, y, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((x - width) // across), -((y - height) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + -(-columns * pixel // 8))
    stream = zlib.decompressobj()
    there = 0
    file.seek(8)
    while there < wanted and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        content = file.read(length) if name == b"IDAT" else b""
        file.seek(4 if content else length + 4, os.SEEK_CUR)
        while content and not stream.eof:
            there += len(stream.decompress(content, 1 << 20))
            content = stream.unconsumed_tail
    if there < wanted:
        raise ValueError(f"{there:,} of {wanted:,} bytes of pixels are there")


class ImageFiles:
    """A data set of image files and their classes; each is read when it is asked for.

    paths: the files. labels: the class of each, integers [n]. classes: the names of the classes.
    size, grey: as for ``read_image``. Without ``size`` all images must have one size.

    Example i is (pixels float32 in [0, 1], label int64): [height, width] in shades of grey or
    [3, height, width] in colours. ``load()`` decodes all of them at once.

    Raises DatasetError if there is no file, or labels do not fit.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Any,
        classes: Sequence[str],
        size: tuple[int, int] | None = None,
        grey: bool | None = None,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.labels: ndarray[Any, Any] = np.array(labels, np.int64)
        self.classes = tuple(classes)
        self.size = size
        self.grey = grey
        if not self.paths:
            raise DatasetError("there are no images; give at least one file for each class")
        if self.labels.shape != (len(self.paths),) or not (
            self.labels.min() >= 0 and self.labels.max() < len(self.classes)
        ):
            raise DatasetError(
                f"{len(self.paths)} images need as many labels from 0 to {len(self.classes) - 1}; "
                f"got shape {self.labels.shape}, {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[ndarray[Any, Any], np.int64]:
        return self._scaled(self._read(index)), self.labels[index]

    def take(self, indices: Any) -> Arrays:
        """The images [n, ...] and labels [n] at ``indices`` (integers [n])."""
        chosen = np.asarray(indices, np.int64)
        images = self._stacked(chosen.tolist(), map(self._read, chosen.tolist()))
        return self._scaled(images), self.labels[chosen]

    def load(self) -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
        """All images, uint8 [n, ...], and their labels, int64 [n].

        Raises DataFileError for the first file that is damaged or does not fit the others.
        """
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # decoders let go of the lock
            images = self._stacked(range(len(self)), pool.map(self._read, range(len(self))))
        return images, self.labels

    def _read(self, index: int) -> ndarray[Any, Any]:
        return read_image(self.paths[index], self.size, self.grey)

    def _stacked(
        self, indices: Sequence[int] | range, images: Iterable[ndarray[Any, Any]]
    ) -> ndarray[Any, Any]:
        found: ndarray[Any, Any] | None = None
        for row, (index, pixels) in enumerate(zip(indices, images)):
            if found is None:
                found = np.empty((len(indices), *pixels.shape), np.uint8)
            if pixels.shape != found.shape[1:]:
                raise DataFileError(
                    self.paths[index],
                    f"{_shape_text(pixels.shape)}, but {self.paths[indices[0]].name} is "
                    f"{_shape_text(found.shape[1:])}",
                    "give a common size (size=, --image-size); if only the colours differ, "
                    "grey=True (--grey) or grey=False (--no-grey, all in colours)",
                )
            found[row] = pixels
        return np.empty((0, *self._read(0).shape), np.uint8) if found is None else found

    @staticmethod
    def _scaled(pixels: ndarray[Any, Any]) -> ndarray[Any, Any]:
        return pixels * np.float32(1 / 255)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]} x {shape[-2]} pixels in " + ("colours" if len(shape) == 3 else "grey")


def image_folder(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
    classes: Sequence[str] | None = None,
) -> ImageFiles:
    """The images in a folder with one folder for each class, which gives the class its name.

    classes: their order, as in the data a network was trained on; sorted by name if left out.

    Files are taken by their ending (``SUFFIXES``), in folders below the classes too; what begins
    with a dot is passed over.

    Raises DatasetError unless there are two classes or more with an image each.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}; give "
            "one with a folder of images for each class"
        )
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if classes is not None:
        unknown = sorted({p.name for p in inner} - set(classes))
        if unknown:
            raise DatasetError(
                f"{folder}: {', '.join(unknown[:5])} is none of the classes {', '.join(classes)}"
            )
    names = [p.name for p in inner] if classes is None else list(classes)
    files: list[Path] = []
    labels: list[int] = []
    for part in inner:
        own = sorted(
            file
            for file in _entries_below(part)
            if file.suffix.lower() in SUFFIXES and file.is_file() and file.name[0] != "."
        )
        if not own:
            raise DatasetError(
                f"{part}: no images (files ending in {', '.join(SUFFIXES[:4])}, ...); put some "
                "there, or remove the folder"
            )
        files += own
        labels += [names.index(part.name)] * len(own)
    if len(names) < 2 or not files:
        raise DatasetError(
            f"{folder}: there must be a folder of images for each of two classes or more; it "
            f"holds {', '.join(p.name for p in sorted(folder.iterdir())[:8]) or 'nothing'}"
        )
    return ImageFiles(files, labels, names, size, grey)


def _entries_below(folder: Path) -> Iterator[Path]:
    """All that is in a folder and in those below; links to folders are not followed.

    ``Path.rglob`` calls itself for each folder in a folder, and fails after some hundreds.
    """
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                yield Path(entry.path)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """What is below a folder, at any depth, by the last part of its name."""
    found: dict[str, list[Path]] = {}
    for candidate in _entries_below(folder):
        found.setdefault(candidate.name, []).append(candidate)
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression. Raises DatasetError for what is none, or has not one group."""
    try:
        wanted = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"{pattern!r} is not a regular expression: {error}") from error
    if wanted.groups != 1:
        raise DatasetError(
            f"the pattern must have one group, which is the class, as _(left|right)_; {pattern!r} "
            f"has {wanted.groups}"
        )
    return wanted


def image_list(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    pattern: str | None = None,
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
    classes: Sequence[str] | None = None,
) -> ImageFiles:
    """The images named in a text file, one in a line.

    path: the list. A line is a file name, then a comma, a tab or spaces, and the name of its
        class; or, with ``pattern``, a file name alone. Empty lines and lines that begin with #
        are passed over.
    root: the folder of the images; that of the list if left out. A name that is not found there
        is looked for in the folders below, where it must occur once.
    pattern: a regular expression with one group, which finds the class in the file name, as
        ``"_(left|right|up|straight)_"``.
    classes: their order, as in the data a network was trained on; sorted by name if left out.

    Raises OSError if the list cannot be read, DataFileError, naming the line, for a file that is
    missing or found twice, or a line without a class.
    """
    path = Path(path)
    base = path.parent if root is None else Path(root)
    try:
        lines = read_whole(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataFileError(path, "not a text in UTF-8", "give a list of file names") from error
    wanted = None if pattern is None else _compiled(pattern)
    below: dict[str, list[Path]] | None = None
    files: list[Path] = []
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, label = _entry(path, number, line, wanted)
        file = base / name
        if not os.path.isfile(file):  # which, unlike Path.is_file, takes any text
            below = _by_name(base) if below is None else below
            there = [found for found in below.get(Path(name).name, []) if found.is_file()]
            if len(there) != 1:
                raise DataFileError(
                    path,
                    f"line {number}: {name[:200]} is "
                    + (f"there {len(there)} times below {base}" if there else f"not in {base}"),
                    "correct the list, or give the folder of the images (root=, --image-root)",
                )
            file = there[0]
        files.append(file)
        names.append(label)
    if not files:
        raise DataFileError(path, "the list is empty", "write a file name and its class in a line")
    order = sorted(set(names)) if classes is None else list(classes)
    unknown = sorted(set(names) - set(order))
    if unknown:
        raise DatasetError(
            f"{path}: {', '.join(unknown[:5])} is none of the classes {', '.join(order)}"
        )
    return ImageFiles(files, [order.index(name) for name in names], order, size, grey)


def _entry(path: Path, number: int, line: str, wanted: re.Pattern[str] | None) -> tuple[str, str]:
    """The file name and the class in a line of a list."""
    if wanted is not None:
        found = wanted.search(line)
        if found is None or found.group(1) is None:
            raise DataFileError(
                path,
                f"line {number}: {wanted.pattern!r} does not occur in {line[:100]!r}",
                "correct the pattern (pattern=, --label-pattern)",
            )
        return line, found.group(1)
    for separator in (",", "\t", " "):
        name, sign, label = line.rpartition(separator)
        if sign and name.strip() and label.strip():
            return name.strip(), label.strip()
    raise DataFileError(
        path,
        f"line {number} has no class: {line[:100]!r}",
        "write it behind the name, as img7.png,cat, or give a pattern that finds it in the name "
        "(pattern=, --label-pattern)",
    )
