"""Participation in a run: what server and vehicles agree on, and who enrolled or was refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from fleetseg._version import __version__
from fleetseg.config import Experiment, FleetConfig
from fleetseg.data.labels import LabelSpace
from fleetseg.data.spaces import is_built_in
from fleetseg.errors import UpdateRejected
from fleetseg.federation.admission import why_left_out
from fleetseg.federation.fleet_facts import check_reported
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, taking_part
from fleetseg.federation.replies import read_failure
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.wire import UpdateCodec, encode_broadcast
from fleetseg.fleet.compatibility import COMPATIBLE_SINCE, at_default
from fleetseg.fleet.held_releases import read_told
from fleetseg.fleet.protocol import (
    PROTOCOL,
    experiment_for_vehicles,
    labels_digest,
    read_enrolments,
    read_machine,
    write_space,
)
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.segmenter import IMAGENET_MEAN, IMAGENET_STD, Normalisation


@dataclass(frozen=True)
class RunSpec:
    """What a run and its vehicles must agree on."""

    run: str  # the run's name, for state of clients
    experiment: Experiment
    exchange: Exchange
    space: LabelSpace
    codec: UpdateCodec
    # Of the network's inputs; it belongs to the start weights, which vehicles do not have.
    normalisation: Normalisation = (IMAGENET_MEAN, IMAGENET_STD)
    start: ModelState | None = None  # initial values of tensors that stay with vehicles
    assigned: Mapping[str, Sequence[str]] | None = None  # site -> its vehicles; None = itself
    tell: Callable[[str], None] = lambda text: None  # messages to the user while waiting


@dataclass
class Roster:
    """The sites that have enrolled in a segment or were refused."""

    segment: int = 0
    site_of: dict[str, str] = field(default_factory=dict)
    enrolled: dict[str, Enrolment] = field(default_factory=dict)
    machines: dict[str, dict[str, str]] = field(default_factory=dict)  # per site
    refused: dict[str, Failure] = field(default_factory=dict)  # per site
    last_round: dict[str, int] = field(default_factory=dict)  # per site, over all segments
    drives: dict[str, dict[str, Any]] = field(default_factory=dict)  # per site, as it reports

    def register(self, site: str, header: Mapping[str, Any], spec: RunSpec) -> None:
        """Register a site's reply to the hello: its vehicles, or why it takes no part."""
        failure = read_failure(site, header)
        try:
            if failure is None:
                needs_labels = SUPERVISION[spec.experiment.training.supervision].needs_labels
                settings = spec.experiment.fleet
                enrolments = read_enrolments(
                    header.get("enrolments"),
                    spec.space.num_classes,
                    needs_labels=needs_labels,
                    max_images=settings.max_images_of.get(site, settings.max_images),
                )
                _require_own(site, enrolments, spec)
                if spec.assigned is None:  # else the server has assigned its vehicles
                    require_bounded(site, enrolments, settings)
                for enrolment in taking_part(enrolments).values():
                    check_reported(spec.experiment, enrolment.facts)
                _require_closed_labels(enrolments, spec)
                for vehicle, enrolment in enrolments.items():
                    self.enrolled[vehicle] = _admitted(vehicle, enrolment, spec)
                    self.site_of[vehicle] = site
        except UpdateRejected as rejected:
            failure = Failure.refused(site, rejected)
        if failure is not None:
            self.refused[site] = failure
        self.machines[site] = read_machine(header.get("machine"))
        self.drives[site] = read_told(header.get("drives"))


def require_bounded(site: str, enrolments: Mapping[str, Enrolment], settings: FleetConfig) -> None:
    """Refuse a kit that enrols more vehicles, or more images, than the operator allows.

    Raises:
        UpdateRejected: naming the option that would allow more.
    """
    most = settings.max_vehicles_of.get(site, settings.max_vehicles)
    if len(enrolments) > most:
        raise UpdateRejected(
            "vehicles",
            f"one kit enrols more vehicles than fleet.max_vehicles_of.{site}"
            if site in settings.max_vehicles_of
            else "one kit enrols more vehicles than fleet.max_vehicles",
            got=len(enrolments),
            expected=f"<= {most}",
            cure=f"The operator can allow it: --set fleet.max_vehicles_of.{site}={len(enrolments)}",
        )
    if (together := settings.max_images_of.get(site)) is None:
        return
    images = sum(enrolment.num_images for enrolment in enrolments.values())
    if images > together:
        raise UpdateRejected(
            "count",
            f"its vehicles together enrol with more images than fleet.max_images_of.{site}",
            got=images,
            expected=f"<= {together}",
        )


def _require_closed_labels(enrolments: Mapping[str, Enrolment], spec: RunSpec) -> None:
    """Refuse a vehicle that has read labels although it counts as unlabelled."""
    patterns = spec.experiment.partition.unlabelled.clients
    for vehicle, enrolment in enrolments.items():
        if enrolment.num_pixels and any(fnmatchcase(vehicle, p) for p in patterns):
            raise UpdateRejected("labels", "counts as unlabelled, but has counted labelled pixels")


def _admitted(vehicle: str, enrolment: Enrolment, spec: RunSpec) -> Enrolment:
    """Make a left-out vehicle abstain: it stays connected, but is not asked."""
    why = why_left_out(vehicle, spec.experiment.federation)
    if not why:
        return enrolment
    spec.tell(f"{vehicle} takes no part: {why}")
    return replace(enrolment, abstains=why)


def hello(spec: RunSpec) -> tuple[dict[str, Any], bytes]:
    """Build the request that opens a run at a site: its header and its bytes."""
    own = {} if is_built_in(spec.space) else {"space": write_space(spec.space)}
    start = b""
    if spec.start is not None:  # part of the model stays with vehicles, which have no start weights
        start = encode_broadcast(Broadcast(0, spec.start), spec.exchange.kept)
    header = {
        **own,
        "what": "hello",
        "run": spec.run,
        "protocol": PROTOCOL,
        "since": COMPATIBLE_SINCE,
        "defaults": at_default(spec.experiment),
        "fleetseg": __version__,
        "experiment": experiment_for_vehicles(spec.experiment),
        "layout": spec.exchange.server.digest,
        "labels": labels_digest(spec.space),
        "normalisation": [list(part) for part in spec.normalisation],
        "time": time.time(),
    }
    return header, start


def _require_own(site: str, enrolments: Mapping[str, Enrolment], spec: RunSpec) -> None:
    """Refuse enrolments of vehicles that are not the site's own."""
    own = {site} if spec.assigned is None else set(spec.assigned.get(site, ()))
    others = [v for v in enrolments if v not in own and not v.startswith(f"{site}/")]
    if others:
        raise UpdateRejected("identity", "enrols in another vehicle's name", got=others[0][:100])
