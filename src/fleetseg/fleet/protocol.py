"""The messages between the aggregating process and the trainers, over any transport.

A request is a header {"task", "what", "run", ...} and, for the tasks in
`federation.tasks.CLIENT_TASKS`, an encoded broadcast. "vehicles" names the vehicle that a site
should serve, if that is not the site itself; "lineage" is the broadcast's history of rounds, and
"counted" the round and lineage of a vehicle's last update that counted.
"hello" opens a run; "revoked" is the last request to a revoked vehicle. "release" makes a site use
("drive") a release and "judge" makes it score a model; both carry the files of a model folder after
the header (`fleet.parcels`) and need no run. A reply is a header with "enrolments", with the
release that the site "drives", with the sums that its vehicles have "judged", or a reply as written
by `federation.replies`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fleetseg.config import Experiment
from fleetseg.data.labels import LABEL_SPACES, LabelSpace
from fleetseg.data.spaces import OWN, checked_space
from fleetseg.errors import ConfigError, UpdateRejected
from fleetseg.experiment_file import to_toml
from fleetseg.federation.checks import MAX_IMAGES, check_enrolment
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.wire import read_facts, write_facts
from fleetseg.models.segmenter import Normalisation
from fleetseg.text import plain

PROTOCOL = 6
MAX_SKEW_S = 300.0
"""Largest difference of a vehicle's clock: logs of both sides must be comparable."""
MACHINE = ("fleetseg", "torch", "python", "machine", "cores", "device", "precision")
"""What a site reports about its machine."""
_MAX_VEHICLES = 1_000


def experiment_for_vehicles(experiment: Experiment) -> str:
    """Write the part of an experiment that vehicles need, without server paths or start weights."""
    own = experiment.data.label_space not in LABEL_SPACES
    if own:  # the hello contains the classes
        data = experiment.data.model_copy(update={"label_space": OWN})
        experiment = experiment.model_copy(update={"data": data})
    return to_toml(for_vehicles(experiment))


def for_vehicles(experiment: Experiment) -> Experiment:
    """Remove from an experiment all names of things on the server; done on both sides.

    So no received name, "~" or "$VARIABLE" is ever resolved to something on a vehicle.
    """
    data = experiment.data.model_copy(update={"sources": (), "evaluation": (), "cache": ""})
    model = experiment.model.model_copy(update={"pretrained": "", "start": ""})
    known = experiment.partition
    partition = type(known)(
        holdout=known.holdout, holdout_gap=known.holdout_gap, unlabelled=known.unlabelled
    )
    # Only the server goes by names: on a vehicle, its own part may have another name.
    federation = experiment.federation.model_copy(update={"only": (), "exclude": ()})
    before = experiment.pretrain  # vehicles need to know only whether pre-training uses styles
    update = {
        "data": data,
        "model": model,
        "partition": partition,
        "federation": federation,
        "pretrain": type(before)(style_probability=before.style_probability),
        "tracking": type(experiment.tracking)(),
        # Limits concern only the server, but vehicles must know how long a step may take.
        "fleet": type(experiment.fleet)(stalled_s=experiment.fleet.stalled_s),
    }
    return experiment.model_copy(update=update)


def experiment_for_judges(experiment: Experiment, size_hw: tuple[int, int]) -> str:
    """Write what vehicles need to judge a model: which frames are held out; no training."""
    data = experiment.data.model_copy(update={"size": size_hw})
    kept = {key: getattr(experiment, key) for key in ("name", "seed", "partition", "evaluation")}
    bare = Experiment().model_copy(update={**kept, "data": data, "engine": experiment.engine})
    return experiment_for_vehicles(bare)


def labels_digest(space: LabelSpace) -> str:
    """Return the SHA-256 over the classes in order and which of them are critical."""
    text = json.dumps([space.name, list(space.classes), sorted(space.critical)])
    return hashlib.sha256(text.encode()).hexdigest()


def write_space(space: LabelSpace) -> dict[str, Any]:
    """Write a label space that is not built in."""
    return asdict(space)


def read_space(fields: Any) -> LabelSpace:
    """Read a label space, or raise UpdateRejected."""
    try:
        space = checked_space(
            LabelSpace(
                name=plain(fields["name"], 100),
                classes=tuple(plain(name, 100) for name in fields["classes"]),
                colours=tuple((int(r), int(g), int(b)) for r, g, b in fields["colours"]),
                critical=tuple(plain(name, 100) for name in fields["critical"]),
            )
        )
    except (TypeError, KeyError, ValueError, ConfigError):
        raise UpdateRejected("malformed", "a label space that cannot be read") from None
    return space


def read_normalisation(fields: Any) -> Normalisation:
    """Read the normalisation of a network's inputs, or raise UpdateRejected."""
    if not isinstance(fields, list) or len(fields) != 2:
        raise UpdateRejected("malformed", "not a normalisation of images")
    mean, std = (_numbers(part, 3) for part in fields)
    if min(std) <= 0:
        raise UpdateRejected("malformed", "a standard deviation is not above zero")
    return mean, std


def _numbers(fields: Any, count: int) -> list[float]:
    if not isinstance(fields, list) or len(fields) != count:
        raise UpdateRejected("malformed", "wrong number of values", expected=count)
    if not all(type(x) in (int, float) and math.isfinite(x) for x in fields):
        raise UpdateRejected("malformed", "not finite numbers")
    return [float(x) for x in fields]


def read_machine(fields: Any) -> dict[str, str]:
    """Read what a site reports about its machine; unknown keys and invalid values are left out."""
    if not isinstance(fields, dict):
        return {}
    known = {key: fields[key] for key in MACHINE if isinstance(fields.get(key), str | int)}
    return {key: plain(value, 60) for key, value in known.items()}


def write_enrolments(enrolments: Mapping[str, Enrolment]) -> list[dict[str, Any]]:
    """Write the enrolments of a site's vehicles."""
    return [{**vars(e), "facts": write_facts(e.facts)} for e in enrolments.values()]


def read_enrolments(
    fields: Any, num_classes: int, *, needs_labels: bool = True, max_images: int = MAX_IMAGES
) -> dict[str, Enrolment]:
    """Read enrolments, or raise UpdateRejected."""
    if not isinstance(fields, list) or not 0 < len(fields) <= _MAX_VEHICLES:
        raise UpdateRejected("malformed", "not a list of enrolments")
    enrolments = {}
    for entry in fields:
        try:
            counts, facts = tuple(entry["histogram_C"]), read_facts(entry.get("facts", {}))
            enrolment = Enrolment(**{**entry, "histogram_C": counts, "facts": facts})
        except (TypeError, KeyError):
            raise UpdateRejected("malformed", "an enrolment's fields differ") from None
        check_enrolment(enrolment, num_classes, needs_labels=needs_labels, max_images=max_images)
        if enrolment.client_id in enrolments:
            raise UpdateRejected(
                "identity", "two vehicles with the same name", got=enrolment.client_id
            )
        enrolments[enrolment.client_id] = enrolment
    return enrolments
