"""Image folders, unpacked or in a tar archive: ``train/<class>/<image>`` and ``test/<class>/<image>``.

The classes are numbered in alphabetical order; names that differ only in how their accents are composed (macOS takes them
apart) are one. An image is PNG, JPEG or BMP, grey or RGB, and all of a set have one
size. Images are put in order of class and file name and then shuffled, train and test each, by one fixed shuffle
(the legacy MT19937 generator, whose stream NumPy keeps unchanged), so that classes are mixed, and the same for
every model, seed and machine; a folder and an archive of it give the same data set.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from neurosim.checks import check_memory
from neurosim.data import archive, cache
from neurosim.data.cifar import SHAPE
from neurosim.data.dataset import DataError, Dataset
from neurosim.data.source import MEND, Arrays, Source, dataset, not_found, unreadable

PREFIX = "images:"

_PARTS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_SHUFFLE_SEED = 0
_WANTED = f"Wanted train/<class>/<image> and test/<class>/<image>, images {', '.join(_SUFFIXES)}."

# A circuit of cells for each pixel takes small images; what is larger is a mistake, or an attack on memory.
_MAX_FILE = 64 << 20
_MAX_PIXELS = 1 << 22
_MAX_TOTAL = 4 << 30


@dataclass(frozen=True, kw_only=True)
class ImageArchive(Source):
    """A known set of images in one archive, whose classes and numbers of images are checked.

    Attributes
    ----------
    archive
        Its name in the data directory.
    names
        The classes, in alphabetical order; each has the same number of images.
    """

    archive: str
    names: tuple[str, ...]

    def find(self, directory: Path) -> Path:
        if not (directory / self.archive).is_file():
            raise not_found(self.name, directory, [f"{directory / self.archive} (no such file)"], "Wanted this file.")
        return directory / self.archive

    def read(self, place: Path) -> Arrays:
        arrays, names = read(place)
        total = self.train + self.validation
        wanted = {name: (total // self.classes, self.test // self.classes) for name in self.names}
        counts = [np.bincount(labels, minlength=len(names)) for labels in (arrays.train_labels, arrays.test_labels)]
        got = {name: (int(a), int(b)) for name, a, b in zip(names, *counts, strict=True)}
        if got != wanted or arrays.train_images.shape[1:] != self.shape:
            raise DataError(
                f"{place} is not the archive wanted: got images of {arrays.train_images.shape[1:]}, (train, test) by "
                f"class {got}; wanted {self.shape}, {wanted}. {MEND}"
            )
        return arrays


CIFAR10_JPEG = ImageArchive(
    name="cifar10_jpeg",
    licence="none stated; research use, cite A. Krizhevsky 2009; a lossy JPEG copy of CIFAR-10",
    train=45_000,
    validation=5_000,
    test=10_000,
    shape=SHAPE,
    classes=10,
    archive="cifar10-jpeg.tar.xz",
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)


def load(name: str, place: Path) -> Dataset:
    """Load an image folder or archive of the user's own; validation is the last tenth of the shuffled training set.

    Parameters
    ----------
    name
        What the data set is called.
    place
        Folder or archive.

    Raises
    ------
    DataError
        As `read` does.
    """
    arrays = Arrays(*cache.through(name, place, lambda place: read(place)[0]))
    classes = int(arrays.train_labels.max()) + 1
    return dataset(name, arrays, len(arrays.train_labels) // 10, classes)


def read(place: Path) -> tuple[Arrays, tuple[str, ...]]:
    """Decode all images of a folder or archive.

    Returns
    -------
    arrays
        Shuffled; images ``(N, 3, height, width)``, or ``(N, height, width)`` where they are grey.
    names
        The classes, in the order of the labels.

    Raises
    ------
    DataError
        For a folder or archive without such images, a class of the test set without training images, fewer than ten
        training images, a file that is no image, an image of another size or mode than the first, images that are
        absurdly large, and whatever `neurosim.data.archive.members` refuses.
    """
    decoded: dict[str, np.ndarray] = {}
    shape, first, total = None, "", 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for name, content in tqdm(_files(place), desc=f"decoding {place.name}", unit=" images", delay=2):
            if name in decoded:
                raise DataError(f"{place}: '{name}' is there twice. Pack the archive again.")
            pixels = _decode(f"{place}: '{name}'", content)
            if shape is None:
                shape, first = pixels.shape, name
            if pixels.shape != shape:
                raise DataError(
                    f"{place}: all images must have one size and mode, but '{name}' is {_size(pixels.shape)} and "
                    f"'{first}' is {_size(shape)}. Bring them to one size and mode."
                )
            total += pixels.nbytes
            if total > _MAX_TOTAL:
                raise DataError(f"{place} holds more than {_MAX_TOTAL >> 30} GiB of pixels; wanted a smaller set.")
            check_memory(5 * total, f"{place}", DataError)  # as bytes, and as float32
            decoded[name] = pixels
    classes = {part: sorted({_parts(name)[1] for name in decoded if name.startswith(f"{part}/")}) for part in _PARTS}
    train = sum(name.startswith("train/") for name in decoded)
    if train < 10 or not classes["test"]:
        raise DataError(
            f"{place} has {train} training and {len(decoded) - train} test images; wanted at least 10 and 1. {_WANTED}"
        )
    if extra := [name for name in classes["test"] if name not in classes["train"]]:
        raise DataError(
            f"{place}: the test set has the class '{extra[0]}', the training set has only {', '.join(classes['train'])}."
        )
    random = np.random.RandomState(_SHUFFLE_SEED)
    arrays = [array for part in _PARTS for array in _shuffled(decoded, part, classes["train"], random)]
    return Arrays(*arrays), tuple(classes["train"])


def _shuffled(
    decoded: dict[str, np.ndarray], part: str, classes: list[str], random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    # By class, then file name: as tuples, because "/" does not sort before every character of a name.
    names = sorted((name for name in decoded if name.startswith(f"{part}/")), key=lambda name: (_parts(name), name))
    names = [names[k] for k in random.permutation(len(names))]
    images = np.empty((len(names), *decoded[names[0]].shape), np.uint8)
    for row, name in enumerate(names):
        images[row] = decoded.pop(name)  # never all images twice in memory
    return images, np.array([classes.index(_parts(name)[1]) for name in names], dtype=np.int64)


def _parts(name: str) -> list[str]:
    """Part, class and file, with accents composed."""
    return unicodedata.normalize("NFC", name).split("/")


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image."""
    if place.is_file():
        yield from archive.members(place, lambda name: _is_image(place, name), _MAX_FILE)
        return
    for path in sorted(path for part in _PARTS for path in (place / part).rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and _is_image(place, name):
            try:
                if path.stat().st_size > _MAX_FILE:
                    raise DataError(f"{path} has {path.stat().st_size:,} bytes; wanted at most {_MAX_FILE:,}.")
                content = path.read_bytes()
            except OSError as error:
                raise unreadable(path, error) from error
            yield name, content


def _is_image(place: Path, name: str) -> bool:
    """Whether a file is one to read; hidden files are not, nor what lies beside train and test."""
    parts = name.split("/")
    if parts[0] not in _PARTS or any(part.startswith(".") for part in parts):
        return False
    image = parts[-1].lower().endswith(_SUFFIXES)
    if image != (len(parts) == 3):
        raise DataError(f"{place}: '{name}' does not belong there. {_WANTED}")
    return image


def _decode(where: str, content: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP")) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise DataError(
                    f"{where} has {width} x {height} pixels; wanted at most {_MAX_PIXELS:,}. Scale it down."
                )
            if image.mode not in ("L", "RGB"):
                raise DataError(
                    f"{where} has the mode {image.mode}; wanted L (grey) or RGB, 8 bits each. Convert the images."
                )
            pixels = np.asarray(image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} is absurdly large ({error}); wanted at most {_MAX_PIXELS:,} pixels.") from error
    except Exception as error:  # a damaged image can raise anything
        raise DataError(f"{where} cannot be decoded ({error}). Mend or remove it.") from error
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]} x {shape[-2]} {'RGB' if len(shape) == 3 else 'grey'}"
