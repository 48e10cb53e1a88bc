"""The arrays of an `.npz` (or one `.npy`), looked at before they are unpacked.

A header says what an array will take; a zip archive of a megabyte can unpack to gigabytes, and a header can say anything.
Nothing is unpacked here that is not asked for, and nothing that is out of proportion to the file.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fusionzoo.errors import DataError

_MOST_COLUMNS = 4096
_HEADER_BYTES = 10_000  # numpy's own limit, checked before the header is read
#: What unpacking may take: always this, and more only in proportion to what is packed. Features compress to a half or a
#: third; a column of nothing but zeros to a thousandth.
_FREE, _TIMES = 256 << 20, 100


@dataclass(frozen=True)
class Column:
    """The header of one array of a file: nothing of its data has been read.

    packed : bytes that it takes in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed: int = 0

    @property
    def bytes(self) -> int:
        """What the array takes in memory."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def inflated(self) -> bool:
        """Whether it is out of all proportion to what is packed."""
        return self.bytes > max(_FREE, _TIMES * self.packed)

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def broken(path: Path, error: BaseException) -> DataError:
    """What to say of bytes that are no whole archive."""
    detail = (str(error) or type(error).__name__)[:200]
    return DataError(
        f"{path}: damaged or truncated ({detail}), expected a whole .npz of arrays. Compare its size or checksum with "
        f"the source's and fetch it again."
    )


def read_columns(path: Path) -> dict[str, Column]:
    """The name, shape and dtype of every array, from the headers alone.

    Raises `DataError` for a damaged file, for an array that needs pickle, for a name that comes twice, and for a header
    that promises more data than the file holds.
    """
    columns: dict[str, Column] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_COLUMNS:
                raise DataError(
                    f"{path}: holds {len(members):,} arrays, expected a column each, at most {_MOST_COLUMNS}."
                )
            for member in members:
                name = _check_member(path, member, columns)
                with archive.open(member) as stream:
                    shape, dtype, offset = _read_header(path, name, cast(IO[bytes], stream))
                column = Column(shape, dtype, member.compress_size)
                if offset + column.bytes != member.file_size:
                    raise DataError(
                        f"{path}: damaged: column {name!r} should hold {column} but its size differs. Fetch it again."
                    )
                columns[name] = column
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Exception as error:  # damaged bytes can fail in any way, deep in zipfile, zlib or numpy
        raise broken(path, error) from error
    return columns


def _check_member(path: Path, member: zipfile.ZipInfo, before: Iterable[str]) -> str:
    """The column's name, or an error that says why this member of the archive is none."""
    if not member.filename.endswith(".npy"):
        raise DataError(f"{path}: holds {member.filename!r}, expected only .npy arrays, as numpy.savez writes.")
    name = member.filename[: -len(".npy")]
    if name in before:
        raise DataError(f"{path}: holds the column {name!r} twice, expected each once. Write the file again.")
    if member.flag_bits & 1:
        raise DataError(f"{path}: column {name!r} is encrypted. Unpack it with its password and write the file again.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path}: column {name!r} is compressed in a way that numpy does not write (method {member.compress_type}). "
            f"Write the file again with numpy.savez or numpy.savez_compressed."
        )
    return name


def _read_header(path: Path, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of the header."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        # Version 3 exists only for structured arrays with non-latin field names: never one of these columns.
        raise DataError(f"{path}: {name!r} is written in version {version} of numpy's format, expected 1.0 or 2.0.")
    width = 2 if version == (1, 0) else 4
    prefix = stream.read(width)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < width or length > _HEADER_BYTES:
        raise DataError(
            f"{path}: damaged: the header of {name!r} says that it is {length:,} bytes long. Fetch it again."
        )
    header = io.BytesIO(prefix + stream.read(length))
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    shape, _, dtype = read(header)
    if dtype.hasobject:
        raise DataError(
            f"{path}: column {name!r} holds Python objects, which only pickle can read, and a pickle can run any code. "
            f"Expected numbers or text: write it again with a plain dtype (for text, numpy.array(values, dtype=str))."
        )
    if any(n < 0 for n in shape):
        raise DataError(f"{path}: damaged: column {name!r} has the shape {shape}. Fetch it again.")
    return shape, dtype, np.lib.format.MAGIC_LEN + width + length


def check_size(path: Path, columns: dict[str, Column], names: Sequence[str]) -> None:
    """Raise `DataError` where unpacking these columns would take memory out of all proportion to the file."""
    total = sum(columns[name].bytes for name in names)
    packed = os.path.getsize(path)
    inflated = [name for name in names if columns[name].inflated]
    if inflated or total > max(_FREE, _TIMES * packed):
        worst = inflated[0] if inflated else max(names, key=lambda name: columns[name].bytes)
        raise DataError(
            f"{path}: is {packed:,} bytes long and would unpack to {total:,}, column {worst!r} ({columns[worst]}) alone to "
            f"{columns[worst].bytes:,}: as a zip bomb does. If the data are real, leave out what is constant, or write the "
            f"file without compression (numpy.savez)."
        )


def read_arrays(path: Path, columns: dict[str, Column], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays, of the columns that `read_columns` gave; a damaged or an inflated one is a `DataError`."""
    check_size(path, columns, names)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except Exception as error:  # damaged bytes can fail in any way, deep in zipfile, zlib or numpy
        raise broken(path, error) from error


def open_npy(path: Path) -> np.ndarray:
    """A `.npy` of numbers, mapped and not read. Raises `DataError`."""
    try:
        with open(path, "rb") as stream:
            _, dtype, _ = _read_header(path, path.name, stream)
        if dtype.kind not in "fiu":
            raise DataError(f"{path}: holds {dtype}, expected numbers.")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Exception as error:  # damaged bytes can fail in any way
        raise DataError(f"{path}: cannot be read as an array ({str(error)[:200]}). Make it again.") from error
