"""Files that are either whole or not there, whenever the process dies: the one way in which anything here is written.

A file is written beside its final name, flushed to the disk, and renamed; the rename is atomic on one file system. What
lies at the name already decides how: a link stays and its target is replaced; a device, a pipe or an open descriptor
(`/dev/stdout`) is written to as it is; a folder is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fusionzoo.errors import OutputError

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(self|thread-self|[0-9]+)(/task/[0-9]+)?/fd")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; folders above it are created. Raises `OutputError`."""
    with writing(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file; what UTF-8 cannot hold (lone surrogates, as in undecodable file names) is spelt out."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON; NaN and infinity become null, so that every reader understands the file."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Strict JSON; NaN and infinity become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path, *, parents: bool = True) -> Iterator[IO[bytes]]:
    """A binary stream whose contents are at `path` once the block has ended well, and not before.

    parents : create the folders above a new file. Raises `OutputError` where the path cannot be written.
    """
    try:
        found = _status(path)
        descriptor = _descriptor(path)
        if descriptor is not None or (found is not None and not stat.S_ISREG(found.st_mode)):
            if found is not None and stat.S_ISDIR(found.st_mode):
                raise OutputError(f"{path}: is a folder, expected a file to write to; name a file in it")
            with _open_as_it_is(path, descriptor) as stream:
                yield stream
            return
        if found is not None and not os.access(path, os.W_OK):
            raise OutputError(f"{path}: must not be written (its permissions say so); choose another file")
        target = Path(os.path.realpath(path))
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb"
        ) as s:
            yield s
            s.flush()
            os.fsync(s.fileno())
        if found is not None:
            os.chmod(temporary, stat.S_IMODE(found.st_mode))
            with contextlib.suppress(OSError, AttributeError):  # only root may give files away
                os.chown(temporary, found.st_uid, found.st_gid)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Flush one file's contents to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename inside it survives a power failure. Nothing where the OS has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems refuse it
            os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that a path like `/dev/stdout` stands for, None for any other path."""
    at = os.path.abspath(path)
    for _ in range(40):
        folder, name = os.path.split(at)
        real = os.path.realpath(folder)
        if _DESCRIPTORS.fullmatch(real) and name.isdigit():
            mine = real == "/dev/fd" or real.split("/")[2] in ("self", "thread-self", str(os.getpid()))
            return int(name) if mine else None
        if not os.path.islink(at):
            return None
        at = os.path.join(real, os.readlink(at))
    return None


def _open_as_it_is(path: Path, descriptor: int | None) -> IO[bytes]:
    if descriptor is None:
        return open(path, "wb")
    sys.stdout.flush()
    return open(os.dup(descriptor), "wb")


def _refused(path: Path, error: BaseException) -> OutputError:
    if isinstance(error, OutputError):
        return error
    why = getattr(error, "strerror", None) or str(error)
    return OutputError(
        f"{path}: cannot be written ({why}); nothing was changed. Choose a place that is yours and has room"
    )
