"""What this machine allows: cores, open files, a home directory, a temporary folder."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from pathlib import Path

from fleetseg.errors import ConfigError

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def allowed_cores() -> int:
    """Count the cores that this process may use, at least one.

    A scheduler, `taskset` or a container may allow fewer than the machine has, by a CPU list or by
    a CPU quota.
    """
    share = cpu_quota()
    cores = _listed_cores()
    return max(1, cores if share is None else min(cores, math.ceil(share)))


def _listed_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(own: Path = OWN_CGROUPS, mount: Path = CGROUPS) -> float | None:
    """Return the CPU time per second that a container allows; None where there is no limit.

    Every group above this process's own may set a limit, so the smallest applies.
    """
    shares = []
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = [mount / controllers, mount / "cpu"] if controllers else [mount]
        for root in roots:
            inside = root / group.strip("/")
            above = [folder for folder in inside.parents if root in (folder, *folder.parents)]
            shares += [_share(folder) for folder in (inside, *above)]
    given = [share for share in shares if share]
    return min(given) if given else None


def _share(folder: Path) -> float | None:
    text = _read(folder / "cpu.max")  # version 2: "QUOTA PERIOD" or "max PERIOD"
    if not text:
        quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        text = f"{quota} {period}"
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None  # "max", or -1 in version 1: no limit
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def open_files_limit() -> int | None:
    """Return how many files this process may have open (`ulimit -n`); None for no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def expanded(text: str | Path, *, where: str | None = None) -> str:
    """Expand "~" and environment variables in a path.

    Raises:
        ConfigError: a variable is not set, or there is no home directory for "~".
    """
    filled = os.path.expandvars(str(text))
    missing = re.search(r"\$(?:\{(\w+)\}|(\w+))", filled)
    if missing:
        name = missing[1] or missing[2]
        raise ConfigError(
            f"the environment variable {name} is not set",
            where=where or str(text),
            got=str(text) if where else None,
            cure=f"Set it: export {name}=/a/folder",
        )
    return _with_home(filled, where)


def given_path(text: str | Path) -> Path:
    """Read a path from a command line: "~" and set variables are expanded, the rest is unchanged.

    Raises:
        ConfigError: there is no home directory for "~", or the text is empty.
    """
    if not str(text).strip():
        raise ConfigError("an empty path", cure="Is the variable set that it comes from?")
    return Path(_with_home(os.path.expandvars(str(text)), None))


def _with_home(text: str, where: str | None) -> str:
    filled = os.path.expanduser(text)
    if filled == "~" or filled.startswith("~/"):
        raise ConfigError(
            "'~' stands for a home folder, which this user does not have",
            where=where,
            got=text,
            cure="Write the path in full, or set HOME",
        )
    return filled


def path_from_environment(name: str) -> Path | None:
    """Read a folder from an environment variable; None where it is unset or blank.

    Values from .env files, unit files and Dockerfiles arrive unexpanded.

    Raises:
        ConfigError: the value names another variable that is not set, or a home directory that does
            not exist.
    """
    text = os.environ.get(name, "").strip()
    return Path(expanded(text, where=name)) if text else None


def home() -> Path | None:
    """Return the user's home directory; None if there is none (an unknown uid and no HOME)."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return None


def temporary_folder() -> Path:
    """Return the folder for temporary files.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        raise ConfigError(
            "there is no folder for temporary files",
            got=os.environ.get("TMPDIR") or "no TMPDIR",
            cure="Set TMPDIR to a folder that you can write to",
        ) from None


def can_write(folder: Path) -> bool:
    """Say whether a folder is writable, or can be created if it does not exist."""
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False
