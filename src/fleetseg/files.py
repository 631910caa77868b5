"""Write files so that a crash leaves the old or the new version; read files that people wrote."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fleetseg.errors import CheckpointError
from fleetseg.hosts import open_files_limit

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write a file by way of a temporary file beside it, fsync and one rename.

    `mode` holds the file's permissions, which apply from creation, less the process's umask.
    Without `durable` there is no fsync: after a crash of the machine the file may be empty or the
    previous version.

    Raises:
        CheckpointError: the disk is full; names the path and the bytes needed.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "wb", opener=partial(os.open, mode=mode)) as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path, len(content)) from None
        # The temporary file is a bystander: what was to be written is the one to name.
        raise OSError(error.errno, error.strerror, str(path)) from None
    if durable:
        sync_folder(path.parent)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a list as JSON, one row per line so that people can read it, by one rename."""
    write_atomic(path, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def set_aside(path: Path) -> None:
    """Rename a damaged file out of the way and keep it for inspection."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(f"{path.name}.damaged"))


def read_text(path: Path) -> str:
    """Read a text file that a person may have saved: UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding; the text says which, where that can be told.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ValueError("the text is UTF-16 or UTF-32: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}): save the text as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """Read JSON that a person may have written; of two equal keys one would be lost.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or has a key twice.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"'{next(key for key in fields if keys.count(key) > 1)}' appears twice")
    return fields


def is_disk_full(error: OSError) -> bool:
    """Say whether a write failed because the disk is full or a quota is reached."""
    return error.errno in _FULL


def disk_full(path: Path, num_bytes: int) -> CheckpointError:
    """Build the error for a disk without room for `num_bytes` more."""
    return CheckpointError(
        f"no space left on the disk for {num_bytes:,} bytes",
        where=path,
        cure="Free some space and continue with --resume",
    )


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: OSError, where: Path | None = None) -> CheckpointError | None:
    """Build the error, with its cure, for a problem of this machine; None for any other error.

    `where` is the path that was to be written, used if the error does not name a file.
    """
    named = error.filename if isinstance(error.filename, str) else where
    at = None if named is None else Path(named).absolute()
    if error.errno in _TOO_MANY:
        # The file at hand is not the cause: it only came last.
        limit = open_files_limit()
        return CheckpointError(
            "too many open files",
            got=f"a limit of {limit:,} (ulimit -n)" if limit and error.errno == errno.EMFILE
            else "the limit of the whole machine",
            cure="Raise it: ulimit -n 4096; or use fewer --workers",
        )  # fmt: skip
    if is_disk_full(error):
        return CheckpointError(
            "no space left on the disk", where=at, cure="Free some space and continue with --resume"
        )
    if error.errno in _FORBIDDEN:
        what = "a read-only file system" if error.errno == errno.EROFS else "no permission"
        return CheckpointError(
            f"cannot be written or read here: {what}",
            where=at,
            cure=_permission_cure(at, where),
        )
    if error.errno == errno.ENAMETOOLONG:
        return CheckpointError("the name is too long", where=at, cure="Choose a shorter --out")
    return None


def _permission_cure(at: Path | None, wanted: Path | None) -> str:
    wanted = None if wanted is None else wanted.absolute()
    if at is None or wanted is None or not {at, *at.parents} & {wanted, *wanted.parents[:-1]}:
        return "Change its permissions, or name another place"
    return "Choose a folder that you can write to (--out DIR)"
