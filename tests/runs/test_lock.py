"""One owner of a run folder at a time; death frees it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import fleetseg
from fleetseg.errors import CheckpointError, FolderInUse
from fleetseg.runs import lock as ownership
from fleetseg.runs.lock import LOCK, new_run_folder, owning

# Owns a folder and has a child that outlives it, as a worker may for a context.
_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from fleetseg.runs.lock import owning
with owning(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_it_is_free_before_and_after(tmp_path: Path) -> None:
    for _ in range(2):
        with owning(tmp_path / "runs" / "a") as owned:
            assert owned.folder == tmp_path / "runs" / "a"
            assert owned.note == ""
            (owned.folder / "kept").write_text("")
    assert [p.name for p in (tmp_path / "runs" / "a").iterdir()] == ["kept"]


def test_a_second_owner_hears_who_the_first_is(tmp_path: Path) -> None:
    with (
        owning(tmp_path),
        pytest.raises(FolderInUse, match=rf"at work.*process {os.getpid()} on .*another --out"),
        owning(tmp_path),
    ):
        pass


def test_a_killed_owner_owns_nothing_even_if_its_child_lives(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(FolderInUse, match=f"process {holder.pid} on"), owning(tmp_path):
            pass
        holder.kill()
        holder.wait()
        assert (tmp_path / LOCK).exists()
        with owning(tmp_path):
            pass
        assert not (tmp_path / LOCK).exists()
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_many_at_once_have_one_owner(tmp_path: Path) -> None:
    def work(number: int) -> int:
        for _ in range(50):
            try:
                with owning(tmp_path):
                    (tmp_path / "alone").touch(exist_ok=False)
                    (tmp_path / "alone").unlink()
            except FolderInUse:
                continue
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == list(range(8))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with owning(tmp_path) as owned:
        assert "has no locks" in owned.note


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "read-only file system.*--out"),
        (errno.EACCES, "no permission.*--out"),
        (errno.ENOSPC, "no space left.*Free some space"),
        (errno.EMFILE, r"too many open files; got a limit of .*\(ulimit -n\). Raise it: ulimit"),
        (errno.ENOTDIR, "run folder.*--out"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        with pytest.raises(CheckpointError, match=words), owning(tmp_path / "new"):
            pass
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointError, match=words):
        new_run_folder("x", tmp_path)


def test_chosen_names_are_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership.time, "strftime", lambda form: "2026-01-01_000000")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_folder("a", tmp_path / "runs"), range(20)))
    names = {p.name for p in made}
    expected = {"2026-01-01_000000_a", *(f"2026-01-01_000000_a-{k}" for k in range(2, 21))}
    assert names == expected
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--out"):
        new_run_folder("a", tmp_path / "file")


def _pairs() -> dict[str, list[tuple[object, object]]]:
    import numpy as np

    image_HWC = np.zeros((32, 32, 3), dtype=np.uint8)
    return {"a": [(image_HWC, np.zeros((32, 32), dtype=np.uint8))] * 2}


TWO = fleetseg.LabelSpace("two", ("a", "b"), ((0, 0, 0), (9, 9, 9)), ())


def _tiny(**more: object) -> fleetseg.Experiment:
    return fleetseg.Experiment(  # type: ignore[arg-type]
        data={"size": (32, 32)},
        training={"batch_size": 2},
        federation={"rounds": 1},
        engine={"kind": "inprocess"},
        **more,
    )


def test_a_sweep_of_quick_runs_gets_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    monkeypatch.chdir(tmp_path)
    folders = {
        fleetseg.run(_tiny(), clients=_pairs(), net=nn.Conv2d(3, 2, 1), space=TWO).folder  # type: ignore[arg-type]
        for _ in range(3)
    }
    assert len(folders) == 3


def test_a_run_that_fails_before_it_began_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fleetseg.errors.ConfigError):
        fleetseg.run(_tiny(partition={"kind": "iid", "clients": 999}))
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_every_way_to_run_asks_who_owns_the_folder(tmp_path: Path, resume: bool) -> None:
    """And writes nothing before it has been told: the run that is at work there goes on."""
    from torch import nn

    from fleetseg import api

    run, net = tmp_path / "run", nn.Conv2d(3, 2, 1)
    fleetseg.run(_tiny(), clients=_pairs(), net=net, space=TWO, out=run)  # type: ignore[arg-type]
    fields = {"host": "localhost", "port": 1, "vehicles": ["car-1"], "revoked": []}
    (tmp_path / "fleet.json").write_text(json.dumps(fields))
    serve = partial(api.serve, fleet=tmp_path)
    with owning(run):
        before = _contents(run)
        for start in (fleetseg.run, api.run_local, serve):
            with pytest.raises(FolderInUse, match=f"process {os.getpid()} on"):
                start(_tiny(), out=run, resume=resume)  # type: ignore[operator]
        assert _contents(run) == before


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
