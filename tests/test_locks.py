"""Locks on open files: who may hold one beside whom, and where there are none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetseg.locks import try_lock


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
    ids=["two readers", "reader then owner", "owner then reader", "two owners"],
)
def test_who_may_hold_a_lock_beside_whom(
    tmp_path: Path, first: bool, second: bool, both: bool
) -> None:
    (tmp_path / "x").touch()
    with open(tmp_path / "x", "r+b") as one, open(tmp_path / "x", "r+b") as other:
        assert try_lock(one, shared=first)
        if both:
            assert try_lock(other, shared=second)
        else:
            with pytest.raises(BlockingIOError):
                try_lock(other, shared=second)
    with open(tmp_path / "x", "r+b") as third:  # closed files hold nothing
        assert try_lock(third)


def test_a_handle_will_do(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    try:
        assert try_lock(handle)
    finally:
        os.close(handle)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from fleetseg.locks import try_lock\n"
        "file = open(sys.argv[1], 'w'); try_lock(file); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with open(tmp_path / "x", "r+b") as file:
        with pytest.raises(BlockingIOError):
            try_lock(file)
        holder.kill()
        holder.communicate()
        assert try_lock(file)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with open(tmp_path / "x", "wb") as file:
        assert not try_lock(file)
        assert not try_lock(file, shared=True)
