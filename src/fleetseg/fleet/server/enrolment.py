"""Who takes part in a run: what is agreed on, who has enrolled in which segment, who is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetseg._version import __version__
from fleetseg.compression.uplink import Uplink
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.spaces import is_built_in
from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Enrolment, Failure
from fleetseg.federation.tensors import Layout
from fleetseg.fleet.protocol import (
    PROTOCOL,
    experiment_for_vehicles,
    labels_digest,
    read_enrolments,
    read_facts,
    read_failure,
    write_space,
)


@dataclass(frozen=True)
class RunSpec:
    """What a run and its vehicles must agree on."""

    run: str  # the run's name, for client state
    experiment: Experiment
    layout: Layout
    space: LabelSpace
    uplink: Uplink | None
    assigned: Mapping[str, Sequence[str]] | None = None  # site -> its vehicles; None = itself
    tell: Callable[[str], None] = lambda text: None  # what a person should know while waiting


@dataclass
class Roster:
    """Who has enrolled in which segment, and who was refused."""

    segment: int = 0
    site_of: dict[str, str] = field(default_factory=dict)
    enrolled: dict[str, Enrolment] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)  # per site
    refused: dict[str, Failure] = field(default_factory=dict)  # per site
    last_round: dict[str, int] = field(default_factory=dict)  # per site, over all segments

    def register(self, site: str, header: Mapping[str, Any], spec: RunSpec) -> None:
        """Note what a site answered to the hello: its vehicles, or why it takes no part."""
        failure = read_failure(site, header)
        try:
            if failure is None:
                told = read_enrolments(header.get("enrolments"), spec.space.num_classes)
                _require_own(site, told, spec)
                for vehicle, enrolment in told.items():
                    self.enrolled[vehicle] = enrolment
                    self.site_of[vehicle] = site
        except UpdateRejected as rejected:
            failure = Failure(site, "refused", rejected.reason, str(rejected)[:500])
        if failure is not None:
            self.refused[site] = failure
        self.facts[site] = read_facts(header.get("facts"))


def hello(spec: RunSpec) -> dict[str, Any]:
    """Build the request that opens a run at a site."""
    own = {} if is_built_in(spec.space) else {"space": write_space(spec.space)}
    return {
        **own,
        "what": "hello",
        "run": spec.run,
        "protocol": PROTOCOL,
        "fleetseg": __version__,
        "experiment": experiment_for_vehicles(spec.experiment),
        "layout": spec.layout.digest,
        "labels": labels_digest(spec.space),
        "time": time.time(),
    }


def _require_own(site: str, told: Mapping[str, Enrolment], spec: RunSpec) -> None:
    """Let a site speak for its own vehicles only."""
    own = {site} if spec.assigned is None else set(spec.assigned.get(site, ()))
    others = [v for v in told if v not in own and not v.startswith(f"{site}/")]
    if others:
        raise UpdateRejected("identity", "enrols in another one's name", got=others[0][:100])
