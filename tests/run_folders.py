"""Run folders of wished scores, as a run would leave them, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.records import PROTOCOL, SPACE, record, scored
from torch import Tensor

from fleetseg.data.spaces import space_toml
from fleetseg.evaluation.protocol import Protocol
from fleetseg.evaluation.scored import Scored
from fleetseg.experiment_file import make_experiment, to_toml
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.counted import last_counted
from fleetseg.own_data import CLASSES
from fleetseg.runs.records import RunEnd
from fleetseg.runs.run import Run


def with_protocol(scores: Scored, protocol: Protocol | None = PROTOCOL) -> Scored:
    """Say how scores were taken."""
    return replace(scores, protocol=protocol)


def run_folder(
    path: Path,
    scores: Sequence[Scored | float | None],
    reason: str = "rounds",
    protocol: Protocol | None = PROTOCOL,
    **fields: Any,
) -> Path:
    """Write the folder of a run that has these scores (or mIoUs), one a round."""
    path.mkdir(parents=True)
    experiment = make_experiment({"name": "one", **fields})
    ones = [
        with_protocol(scored(one), protocol) if isinstance(one, float) else one for one in scores
    ]
    rounds = [record(number, scored=one) for number, one in enumerate(ones, 1)]
    last = rounds[-1]
    lines = [each.to_dict() for each in rounds]
    if reason:
        end = RunEnd(reason, last.round, 1.0, last.scored, last.round, "f" * 64)
        lines.append({"event": "end", **end.to_dict()})
    (path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "environment.json").write_text("{}")
    (path / CLASSES).write_text(space_toml(SPACE))
    (path / "experiment.toml").write_text(to_toml(experiment))
    return path


def sum_of_kept(run: Run, name: str) -> Tensor:
    """Add up what clients keep under a name for the round after a run's last."""
    clients = sorted({client for record in run.records for client in record.cohort})
    kept, counted = ClientStateStore(run.folder / "clients"), last_counted(run.records, clients)
    next_round = run.records[-1].round + 1
    own = [kept.load(client, next_round, counted[client]).get(name) for client in clients]
    return torch.stack([own_T for own_T in own if own_T is not None]).sum(0)
