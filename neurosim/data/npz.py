"""Arrays in a ``.npz`` file: plain numbers, of the sizes that the file holds; nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from neurosim.data.dataset import DataError
from neurosim.data.source import MAX_FILE, unreadable


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

    Raises
    ------
    DataError
        No such file, one that is damaged or expands to more than 1 GiB; a member that is not an array of numbers,
        or claims another size than it has.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > MAX_FILE:
                raise DataError(f"{path} expands to {size:,} bytes; wanted at most {MAX_FILE:,}.")
            return {member.filename.removesuffix(".npy"): _array(path, archive, member) for member in members}
    except DataError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # BadZipFile, zlib.error, a cipher or a compression that Python does not know, ...
        raise DataError(f"{path} is damaged, or is not a .npz file ({error}).") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    where = f"{path}: member '{member.filename}'"
    with archive.open(member) as stream:
        try:
            version = npy.read_magic(stream)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, by_columns, dtype = read(stream)
        except Exception as error:  # NumPy reads the header as Python
            raise DataError(f"{where} is not an array of NumPy ({error}).") from error
        if dtype.kind not in "biuf":
            raise DataError(f"{where} holds values of the type {dtype}; wanted numbers.")
        claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if min(shape, default=0) < 0 or claimed != held:
            raise DataError(f"{where} claims the shape {shape} of {dtype}, and holds {held:,} bytes.")
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if by_columns else "C")
