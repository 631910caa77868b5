"""Every error a user can meet, in one tree.

* FleetSegError
  x ConfigError          the experiment file, an option or a name is wrong
  x DataError            a data set cannot be used as it stands
    - BadSample          one sample cannot be used; it is skipped, counted and listed
    - LeakError          a sample would stand on two sides of a split
  x ModelError           a network or a saved model does not fit what is asked of it
  x MissingExtra         an optional dependency is not installed
  x EngineError          a worker or an engine broke; the run folder stays resumable
  x OutOfMemory          a device has too little memory for the work
  x UpdateRejected       an update from a client is refused; the run goes on without it
  x QuorumLost           too few usable updates for too many rounds
  x CheckpointError      a run folder or a checkpoint cannot be read or written
    - FolderInUse        another process is using the run folder
    - DamagedFile        a file is not what was written: its digest differs, or it is cut short
    - StateMissing       the state that a client kept after its last accepted update is missing

Each message says what is wrong, where, what was got, what was expected, and the cure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class FleetSegError(Exception):
    """Base of all errors meant for the user: what, where, got, expected, cure."""

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        got: object = None,
        expected: object = None,
        cure: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        text = what if where is None else f"{where}: {what}"
        if got is not None:
            text += f"; got {got}"
        if expected is not None:
            text += f"{',' if got is not None else ';'} expected {expected}"
        if cure is not None:
            text += f". {cure}"
        super().__init__(text)


class ConfigError(FleetSegError):
    """The experiment file, an option or a name is wrong."""


class DataError(FleetSegError):
    """A data set cannot be used as it stands."""


class BadSample(DataError):
    """One sample cannot be used; it is skipped, counted and listed."""


class LeakError(DataError):
    """A sample would stand on two sides of a split."""


class ModelError(FleetSegError):
    """A network or a saved model does not fit what is asked of it."""


class MissingExtra(FleetSegError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            cure=f"Install it with: pip install 'fleetseg[{extra}]'",
        )


class EngineError(FleetSegError):
    """A worker or an engine broke; the run folder stays resumable."""


class OutOfMemory(FleetSegError):
    """A device has too little memory for the work."""


class UpdateRejected(FleetSegError):
    """An update from a client is refused; the run goes on without it.

    `reason` is a short stable code (e.g. "non-finite", "shape") for logs and counts.
    """

    def __init__(self, reason: str, what: str, **parts: object) -> None:
        self.reason = reason
        super().__init__(what, **parts)  # type: ignore[arg-type]


class QuorumLost(FleetSegError):
    """Too few usable updates for too many rounds."""


class CheckpointError(FleetSegError):
    """A run folder or a checkpoint cannot be read or written."""


class FolderInUse(CheckpointError):
    """Another process is using the run folder."""


class DamagedFile(CheckpointError):
    """A file is not what was written: its digest differs, or it is cut short."""


class StateMissing(CheckpointError):
    """The state that a client kept after its last accepted update is missing."""


def unknown_name(
    kind: str, name: str, valid: Iterable[str], *, where: str | Path | None = None
) -> ConfigError:
    """Build the error for a name that is not among the valid choices, with the nearest match.

    >>> print(unknown_name("loss", "focall", ["ce", "focal"]))
    unknown loss 'focall'; expected one of: ce, focal. Did you mean 'focal'?
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    return ConfigError(
        f"unknown {kind} '{name}'",
        where=where,
        expected="one of: " + ", ".join(names),
        cure=f"Did you mean '{near[0]}'?" if near else None,
    )
