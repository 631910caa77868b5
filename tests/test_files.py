"""Atomic writes, full disks, and text files in other encodings."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fleetseg.errors import CheckpointError
from fleetseg.files import read_text, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_text(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"\x00\xff")
    write_atomic(tmp_path / "b", "käfer\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_bytes() == "käfer\n".encode()
    assert names(tmp_path) == ["a", "b"]


def test_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, "a long old text")
    write_atomic(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_names_path_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    path = tmp_path / "state.bin"
    write_atomic(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CheckpointError) as caught:
        write_atomic(path, b"x" * 12345)
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{path}: no space left on the disk for 12,345 bytes")
    assert "--resume" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state.bin"]


def test_a_really_full_device() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="No space left"), full.open("wb", buffering=0) as file:
        file.write(b"x")


def test_what_was_to_be_written_is_named_and_not_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    for path in (tmp_path / "page", tmp_path / "nowhere" / "page", tmp_path / ("x" * 300)):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            write_atomic(path, b"")
        assert caught.value.filename == str(path)
    assert names(tmp_path) == ["page"]


def test_other_trouble_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "folder", b"x")

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(path, b"x")
    assert names(tmp_path) == []


def test_a_kill_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that no handler sees, at each system call in turn."""

    class Killed(BaseException):
        pass

    def killed_at(call: int, done: Callable[..., Any]) -> Callable[..., Any]:
        calls = count(1)

        def step(*args: Any, **options: Any) -> Any:
            if next(calls) == call:
                raise Killed
            return done(*args, **options)

        return step

    path = tmp_path / "a"
    # The file is opened, synced and renamed; then its folder is opened and synced.
    before = [("open", 1), ("fsync", 1), ("replace", 1)]
    for name, call in (*before, ("open", 2), ("fsync", 2)):
        expected = b"old" if (name, call) in before else b"new"
        write_atomic(path, b"old")
        monkeypatch.setattr(os, name, killed_at(call, getattr(os, name)))
        with pytest.raises(Killed):
            write_atomic(path, b"new")
        monkeypatch.undo()
        assert path.read_bytes() == expected


def test_content_is_on_the_disk_before_the_rename_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        steps.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")
        fsync(handle)

    def spy_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomic(tmp_path / "a", b"x")
    assert steps == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_are_read_with_or_without_a_byte_order_mark(
    tmp_path: Path, start: bytes, end: str
) -> None:
    (tmp_path / "a").write_bytes(start + f"käfer{end}b".encode())
    assert read_text(tmp_path / "a") == "käfer\nb"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_texts_are_told_from_damage(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_bytes("name = 1".encode(encoding))
    with pytest.raises(ValueError, match="UTF-16 or UTF-32: save it as UTF-8"):
        read_text(tmp_path / "a")


def test_the_line_of_a_foreign_character_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("a = 1\nb = 'straße'".encode("cp1252"))
    with pytest.raises(ValueError, match=r"line 2 is not UTF-8 \(byte 0xdf\)"):
        read_text(tmp_path / "a")
