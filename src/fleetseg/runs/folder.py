"""The run folder: everything that one run leaves behind, and how to resume from it.

experiment.toml   resolved, reads back to the same experiment
environment.json  versions, machine, resolved device and precision
manifest.json     which client holds which sample
enrolled.json     what each client reported: images, pixels of each class
vehicle_looks.json  mean colour or brightness of each client's images, where known
own_data.json     digests of samples that a user passed as Python objects
classes.toml      the label space, unless it is built in
resumed.jsonl     after which round and when the run was resumed
rounds.jsonl      one line per round, then one line for the end: the source of truth
image_counts.npz  what each frame of the server's sets contributed to the newest score
pictures/         a few evaluation frames, and each scored round's predictions of them
checkpoints/      the last few rounds, each complete
model/            the final model
clients/          the local state of simulated clients, such as what their updates left out, and the
                  vehicles of a fleet on this machine
tracking/         for a run with trackers: the progress of each, and what it keeps here
logs/             over a network: all received messages
fleet/            for a fleet on this machine: its certificates and kits; fleet-before-1/ and so on
                  belong to starts with another number of sites
run.lock          while a process uses the folder: which one (see `owning`)
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.partition.manifest import Manifest
from fleetseg.errors import CheckpointError, FleetSegError
from fleetseg.experiment_file import dotted, load_experiment, to_toml
from fleetseg.federation.checkpoint import (
    ServerState,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from fleetseg.federation.records import RoundRecord
from fleetseg.files import disk_full, is_disk_full, write_atomic
from fleetseg.hosts import allowed_cores
from fleetseg.runs.records import RunEnd
from fleetseg.runs.starts import record_resume
from fleetseg.text import listing

_LONG = 100  # characters of a changed option


class RunFolder:
    """Writes and reads one run folder; it is the `Log` that rounds are committed to."""

    def __init__(
        self, path: Path, experiment: Experiment, layout_digest: str, space: LabelSpace
    ) -> None:
        self.path = path
        self._experiment_digest = experiment.digest
        self._layout_digest = layout_digest
        self._space = space
        self._state: ServerState | None = None
        self._records: list[RoundRecord] = []
        self._unpublished = False  # the newest round has no line in the log yet

    @property
    def records(self) -> Sequence[RoundRecord]:
        """All committed rounds, oldest first."""
        return self._records

    @property
    def state(self) -> ServerState:
        """The newest committed state; requires that the folder was created or resumed."""
        assert self._state is not None
        return self._state

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def create(
        self,
        experiment: Experiment,
        environment: Mapping[str, Any],
        state: ServerState,
        manifest: Manifest | None,
    ) -> None:
        """Lay out a new run folder; experiment.toml is written last and makes it a run folder.

        Raises:
            CheckpointError: the folder already holds a run.
        """
        require_no_run(self.path)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {**environment, "started": started}
        write_atomic(self.path / "environment.json", json.dumps(facts, indent=1) + "\n")
        write_atomic(self._log, "")
        if manifest is not None:
            manifest.write(self.path / "manifest.json")
        self._save(state, {})
        write_atomic(self.path / "experiment.toml", to_toml(experiment))

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        """Make a round final by the rename of its checkpoint; `publish` adds its log line."""
        self._save(state, record.to_dict())
        self._records.append(record)
        self._unpublished = True

    def publish(self, record: RoundRecord) -> None:
        """Log the newest round: add its line, or rewrite the line if it had no scores."""
        self._records[-1] = record
        if self._unpublished:
            self._append(record.to_dict())
        else:
            self._rewrite()
        self._unpublished = False

    def resume(self) -> tuple[ServerState, list[str]]:
        """Read the last committed round and bring the log in line with it.

        Returns the state and a list of what was damaged. A crash between `commit` and `publish`
        leaves the log one line short: the checkpoint has the whole line except the scores. A
        damaged newest checkpoint leaves the log ahead.
        """
        for left_by_a_crash in self.path.rglob(".*.tmp"):
            if left_by_a_crash.is_file():  # folders are those of releases, which their owner clears
                left_by_a_crash.unlink(missing_ok=True)
        state, record, damaged = load_newest(
            self.checkpoints, experiment=self._experiment_digest, layout=self._layout_digest
        )
        records = {r["round"]: r for r in read_records(self.path) if r["round"] <= state.round}
        if state.round > 0:
            records.setdefault(state.round, record)
        if len(records) != state.round:
            missing = sorted(set(range(1, state.round)) - set(records))
            raise CheckpointError(
                "rounds are missing from the log",
                where=self._log,
                got=missing,
                cure="Put the file back, or start a new run with another --out",
            )
        self._records = [read_record(records[r], self._space, self._log) for r in sorted(records)]
        self._state = state
        self._rewrite()
        record_resume(self.path, state.round)
        return state, damaged

    def finish(self, end: RunEnd) -> None:
        """Append the line that closes the log."""
        self._append({"event": "end", **end.to_dict()})

    @property
    def _log(self) -> Path:
        return self.path / "rounds.jsonl"

    def _rewrite(self) -> None:
        write_atomic(self._log, "".join(_line(r.to_dict()) for r in self._records))

    def _save(self, state: ServerState, record: dict[str, Any]) -> None:
        save_checkpoint(
            self.checkpoints,
            state,
            record,
            experiment=self._experiment_digest,
            layout=self._layout_digest,
        )
        self._state = state

    def _append(self, record: Mapping[str, Any]) -> None:
        line = _line(record)
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self._log, len(line)) from None
            raise


def has_run(path: Path) -> bool:
    """Say whether a folder holds a run."""
    return (path / "experiment.toml").is_file()


def require_no_run(path: Path) -> None:
    """Refuse a folder that holds a run: nothing is overwritten.

    Raises:
        CheckpointError: naming the folder and the two ways to proceed.
    """
    if has_run(path):
        raise CheckpointError(
            "this folder already holds a run",
            where=path,
            cure="Resume it with --resume, or choose another --out",
        )


def require_same_experiment(path: Path, experiment: Experiment) -> None:
    """Refuse to go on with options that are not those a run was started with, and name them.

    Raises:
        CheckpointError, ConfigError: they differ, or those of the run cannot be read.
    """
    before = read_experiment(path)
    if before.digest == experiment.digest:
        return
    then, now = dotted(before.defining), dotted(experiment.defining)
    differ = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    raise CheckpointError(
        "the run was started with another experiment",
        where=path,
        got=listing([_changed(key, then.get(key), now.get(key)) for key in differ], 4),
        cure=f"Resume with its own settings: fleetseg run --resume --out {shlex.quote(str(path))}; "
        "or choose another --out",
    )


def _changed(key: str, then: object, now: object) -> str:
    text = f"{key} = {json.dumps(now)}, not {json.dumps(then)}"
    return text if len(text) <= _LONG else f"another {key}"


def can_resume(path: Path) -> bool:
    """Say whether a folder holds at least one committed round."""
    return has_run(path) and bool(list_checkpoints(path / "checkpoints"))


def read_experiment(path: Path) -> Experiment:
    """Read the experiment of a run folder."""
    return load_experiment(path / "experiment.toml")


def read_record(fields: Mapping[str, Any], space: LabelSpace, where: Path) -> RoundRecord:
    """Read one line of a log.

    Raises:
        CheckpointError: the line is not a round, or has other classes.
    """
    try:
        return RoundRecord.from_dict(fields, space)
    except (KeyError, TypeError, ValueError, AttributeError, FleetSegError) as error:
        raise CheckpointError(
            f"a line that is not a round of this run ({type(error).__name__}: {error})", where=where
        ) from None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the rounds of a run folder as plain fields; an incomplete last line is left out."""
    return [line for line in _read_lines(path) if "round" in line and "event" not in line]


def read_end(path: Path) -> dict[str, Any] | None:
    """Read the closing line of the log as plain fields; None for an unfinished run."""
    lines = _read_lines(path)
    return lines[-1] if lines and lines[-1].get("event") == "end" else None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = (path / "rounds.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise CheckpointError("no rounds.jsonl: not a run folder", where=path) from None
    lines = []
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            break
        if not isinstance(fields, dict):
            break
        lines.append(fields)
    return lines


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


_DECIDING = ("torch", "cpu_capability", "device", "precision")


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describe the machine and the versions that a run was made with."""
    from fleetseg._version import __version__

    return {
        "fleetseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": allowed_cores(),
        "device": device,
        "precision": precision,
    }


def changed_since(folder: Path, now: Mapping[str, Any]) -> list[str]:
    """Say which facts of the machine that affect the bits have changed since the run started."""
    try:
        then = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # this file serves no other purpose
    return [
        f"resumed with {name} {now[name]}, started with {then[name]}: "
        "the model may not have the bits of a run that was never stopped"
        for name in _DECIDING
        if name in then and then[name] != now[name]
    ]
