"""Limits, folders, variables and streams of this machine, each problem with its cure."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fleetseg.doctor.findings import Finding, Verdict
from fleetseg.errors import FleetSegError
from fleetseg.hosts import allowed_cores, can_write, cpu_quota, home, open_files_limit

_FEW_FILES = 256  # enough for a few workers and data sets, and the system's own files
_LEAST_FILES = 64
_MIN_FREE_GB = 2.0


def cores() -> str:
    """Say how many of the machine's cores may be used."""
    allowed, there = allowed_cores(), os.cpu_count() or 1
    if allowed == there:
        return f"{there} core" + ("" if there == 1 else "s")
    quota = cpu_quota()
    why = f"a container's share of {quota:g}" if quota and quota <= allowed else "this process's"
    return f"{allowed} of {there} cores ({why}; that many workers are started)"


def open_files() -> Iterator[Finding]:
    """The limit on open files."""
    limit = open_files_limit()
    verdict: Verdict = "ok"
    detail = "no limit" if limit is None else f"at most {limit:,} (ulimit -n)"
    if limit is not None and limit < _FEW_FILES:
        verdict = "fail" if limit < _LEAST_FILES else "note"
        detail += "; few for many workers: ulimit -n 4096"
    yield Finding(verdict, "open files", detail)


def shared_memory() -> Iterator[Finding]:
    """Where workers receive the model."""
    from fleetseg.engines.shared import probe

    try:
        kind = probe()
    except (FleetSegError, OSError) as error:
        yield Finding("fail", "shared mem.", str(error))
        return
    if kind == "memory":
        yield Finding("ok", "shared mem.", "anonymous memory; /dev/shm is not needed")
    else:
        detail = f"none from this system; a file in {tempfile.gettempdir()} is used (TMPDIR)"
        yield Finding("note", "shared mem.", detail)


def user() -> Iterator[Finding]:
    """The current user and the home directory."""
    folder, known = home(), _known_user()
    who = "" if known else f"user id {os.getuid()} has no name here; "
    if folder is None:
        detail = f"{who}no home folder: set HOME and FLEETSEG_CACHE to folders of yours"
        yield Finding("note", "home", detail)
    elif not can_write(folder):
        detail = f"{who}{folder} cannot be written to: set FLEETSEG_CACHE to a folder of yours"
        yield Finding("note", "home", detail)
    else:
        yield Finding("ok" if known else "note", "home", f"{who}{folder}")


def _known_user() -> bool:
    if sys.platform == "win32":
        return True
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def variables() -> Iterator[Finding]:
    """Folders named by environment variables."""
    named = os.environ.get("XDG_CACHE_HOME", "").strip()
    if named and not named.startswith(("/", "~", "$")):
        detail = f"XDG_CACHE_HOME={named} is not a full path and is ignored; write it in full"
        yield Finding("note", "variables", detail)
    data = os.environ.get("FLEETSEG_DATA", "").strip()
    if not data:
        return
    from fleetseg.hosts import path_from_environment

    try:
        folder = path_from_environment("FLEETSEG_DATA")
    except FleetSegError as error:
        yield Finding("note", "variables", str(error))
        return
    if folder is not None and not folder.is_dir():
        yield Finding("note", "variables", f"FLEETSEG_DATA={data}: there is no such folder")
    else:
        yield Finding("ok", "variables", f"FLEETSEG_DATA is {folder}")


def temporary() -> Iterator[Finding]:
    """Temporary files and sockets."""
    from fleetseg.fleet.sockets import private_directory
    from fleetseg.hosts import temporary_folder

    try:
        folder = temporary_folder()
        private_directory().rmdir()
    except (FleetSegError, OSError) as error:
        yield Finding("fail", "temporary", str(error))
        return
    wished = os.environ.get("TMPDIR", "")
    free_gb = shutil.disk_usage(folder).free / 1e9
    detail = f"{folder}, {free_gb:.1f} GB free"
    if wished and Path(wished).absolute() != folder.absolute():
        yield Finding("note", "temporary", f"{detail}; TMPDIR={wished} cannot be used")
    else:
        yield Finding("ok" if free_gb > 0.1 else "note", "temporary", detail)


def working_folder() -> Iterator[Finding]:
    """Whether runs can be written here, with exclusive ownership of a run folder."""
    from fleetseg.runs.lock import owning

    here = Path.cwd()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".fleetseg-", dir=here) as probe,
            owning(Path(probe)) as owned,
        ):
            unlocked = owned.note
    except (FleetSegError, OSError):
        detail = f"{here} cannot be written to: name a run folder elsewhere (--out DIR)"
        yield Finding("note", "runs", detail)
        return
    free_gb = shutil.disk_usage(here).free / 1e9
    detail = f"{here / 'runs'}, {free_gb:.1f} GB free"
    if unlocked:
        detail += (
            "; no locks on this file system: make sure that only one process uses a run folder"
        )
    verdict: Verdict = "note" if unlocked or free_gb < _MIN_FREE_GB else "ok"
    yield Finding(verdict, "runs", detail)


def output() -> Iterator[Finding]:
    """The encoding of standard output."""
    encoding = getattr(sys.stdout, "encoding", None) or "none"
    if encoding.lower().replace("-", "").startswith("utf"):
        yield Finding("ok", "output", encoding)
    else:
        detail = f"{encoding}: marks and bars are written plainly; PYTHONIOENCODING=utf-8"
        yield Finding("note", "output", detail)
