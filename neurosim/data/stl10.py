"""STL-10 from its binary files, unpacked or in the published archive; the 100,000 unlabelled images are not read.

``X``: for each image three planes of 96x96 unsigned bytes, **column by column**. ``y``: one byte, 1..10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neurosim.data.dataset import DataError
from neurosim.data.published import File, Form, PublishedSource, sized
from neurosim.data.source import MEND, Arrays

SHAPE = (3, 96, 96)
_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Stl10Binary(Form):
    """The binary form.

    Attributes
    ----------
    train, test
        Numbers of images.
    """

    train: int
    test: int

    def arrays(self, files: Mapping[str, File]) -> Arrays:
        return Arrays(
            _images(files["train_X.bin"], self.train),
            _labels(files["train_y.bin"], self.train),
            _images(files["test_X.bin"], self.test),
            _labels(files["test_y.bin"], self.test),
        )


STL10 = PublishedSource(
    name="stl10",
    licence="none stated; research use, cite A. Coates, H. Lee, A. Y. Ng 2011",
    train=4_500,
    validation=500,
    test=8_000,
    shape=SHAPE,
    classes=_CLASSES,
    forms=(
        Stl10Binary(
            folder="stl10_binary",
            archive="stl10_binary.tar.gz",
            archive_md5="91f7769df0f17e558f3565bffb0c7dfb",
            files={
                "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
                "train_y.bin": "5a34089d4802c674881badbb80307741",
                "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
                "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
            },
            train=5_000,
            test=8_000,
        ),
    ),
)


def _images(file: File, count: int) -> np.ndarray:
    channels, rows, columns = SHAPE
    planes = np.frombuffer(sized(file, count * channels * rows * columns), np.uint8)
    return np.ascontiguousarray(planes.reshape(count, channels, columns, rows).transpose(0, 1, 3, 2))


def _labels(file: File, count: int) -> np.ndarray:
    labels = np.frombuffer(sized(file, count), np.uint8).astype(np.int64)
    if not 1 <= labels.min() <= labels.max() <= _CLASSES:
        raise DataError(
            f"{file.where} has labels from {labels.min()} to {labels.max()}; wanted 1 to {_CLASSES}. {MEND}"
        )
    return labels - 1
