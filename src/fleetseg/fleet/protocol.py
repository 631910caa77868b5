"""What the aggregating process and the trainers say to each other, whatever carries it.

A request is a header {"task", "what", "run", ...} and, for "train" and "evaluate", an encoded
broadcast; "vehicles" names the vehicle a site is to serve, where that is not the site itself.
"hello" opens a run, "revoked" is the last that a revoked vehicle hears. An
answer is a header with one of "enrolments", "update", "confs", "failure", and an update's bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fleetseg.config import Experiment
from fleetseg.data.labels import LABEL_SPACES, LabelSpace
from fleetseg.data.spaces import OWN, checked_space
from fleetseg.errors import ConfigError, UpdateRejected
from fleetseg.experiment_file import to_toml
from fleetseg.federation.checks import check_enrolment
from fleetseg.federation.messages import Enrolment, Evaluation, Failure
from fleetseg.text import plain

PROTOCOL = 1
MAX_SKEW_S = 300.0
"""Most that a vehicle's clock may differ: logs of both sides must be comparable."""
FACTS = ("fleetseg", "torch", "python", "machine", "cores", "device", "precision")
"""What a vehicle tells of its machine."""
_KINDS = ("late", "refused", "lost", "abstained")
_MAX_VEHICLES, _MAX_DOMAINS, _MAX_TEXT = 10_000, 10_000, 500


def experiment_for_vehicles(experiment: Experiment) -> str:
    """Write what vehicles need of an experiment; no path of the server's, and no start weights."""
    own = experiment.data.label_space not in LABEL_SPACES
    data = experiment.data.model_copy(
        update={
            "sources": (),
            "evaluation": (),
            "cache": "",
            "label_space": OWN if own else experiment.data.label_space,  # the hello has the classes
        }
    )
    model = experiment.model.model_copy(update={"pretrained": "", "start": ""})
    known = experiment.partition
    partition = type(known)(holdout=known.holdout, holdout_gap=known.holdout_gap)
    update = {"data": data, "model": model, "partition": partition}
    return to_toml(experiment.model_copy(update=update))


def labels_digest(space: LabelSpace) -> str:
    """SHA-256 over the classes in their order and which of them are critical."""
    text = json.dumps([space.name, list(space.classes), sorted(space.critical)])
    return hashlib.sha256(text.encode()).hexdigest()


def write_space(space: LabelSpace) -> dict[str, Any]:
    """Write a label space that is no built-in one."""
    return asdict(space)


def read_space(told: Any) -> LabelSpace:
    """Read a label space, or raise UpdateRejected."""
    try:
        space = checked_space(
            LabelSpace(
                name=plain(told["name"], 100),
                classes=tuple(plain(name, 100) for name in told["classes"]),
                colours=tuple((int(r), int(g), int(b)) for r, g, b in told["colours"]),
                critical=tuple(plain(name, 100) for name in told["critical"]),
            )
        )
    except (TypeError, KeyError, ValueError, ConfigError):
        raise UpdateRejected("malformed", "a label space that cannot be read") from None
    return space


def write_failure(kind: str, reason: str, detail: str = "") -> dict[str, Any]:
    """Build the answer of a vehicle that has no other."""
    return {"failure": [kind, reason, detail[:_MAX_TEXT]]}


def read_failure(vehicle: str, header: Mapping[str, Any]) -> Failure | None:
    """Read an answer's failure, if it is one; whatever a vehicle sends becomes a plain text."""
    told = header.get("failure")
    if told is None:
        return None
    if not isinstance(told, list) or len(told) != 3 or told[0] not in _KINDS:
        return Failure(vehicle, "refused", "malformed", "a failure that cannot be read")
    kind, reason, detail = told
    return Failure(vehicle, kind, plain(reason, 40), plain(detail, _MAX_TEXT))


def read_facts(told: Any) -> dict[str, str]:
    """Read what a site says of its machine; unknown keys and odd values are left out."""
    if not isinstance(told, dict):
        return {}
    known = {key: told[key] for key in FACTS if isinstance(told.get(key), str | int)}
    return {key: plain(value, 60) for key, value in known.items()}


def write_enrolments(enrolments: Mapping[str, Enrolment]) -> list[dict[str, Any]]:
    """Write what a site's vehicles say of themselves."""
    return [asdict(enrolment) for enrolment in enrolments.values()]


def read_enrolments(told: Any, num_classes: int) -> dict[str, Enrolment]:
    """Read enrolments, or raise UpdateRejected."""
    if not isinstance(told, list) or not 0 < len(told) <= _MAX_VEHICLES:
        raise UpdateRejected("malformed", "no list of enrolments")
    enrolments = {}
    for fields in told:
        try:
            enrolment = Enrolment(
                **{**fields, "histogram_C": tuple(fields["histogram_C"])},
            )
        except (TypeError, KeyError):
            raise UpdateRejected("malformed", "an enrolment's fields differ") from None
        check_enrolment(enrolment, num_classes)
        if enrolment.client_id in enrolments:
            raise UpdateRejected("identity", "two vehicles of one name", got=enrolment.client_id)
        enrolments[enrolment.client_id] = enrolment
    return enrolments


def write_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Write confusion matrices as rows of integers."""
    confs = {domain: conf_CC.tolist() for domain, conf_CC in evaluation.conf_by_domain.items()}
    return {"confs": confs, "round": evaluation.round}


def read_evaluation(vehicle: str, header: Mapping[str, Any], num_classes: int) -> Evaluation:
    """Read confusion matrices, or raise UpdateRejected; `validate_evaluation` must follow."""
    confs, round_ = header.get("confs"), header.get("round")
    if not isinstance(confs, dict) or len(confs) > _MAX_DOMAINS or type(round_) is not int:
        raise UpdateRejected("malformed", "no confusion matrices")
    read = {}
    for domain, rows in confs.items():
        if not _is_matrix(rows, num_classes):
            raise UpdateRejected("shape", "not an integer matrix of the classes")
        read[domain] = np.array(rows, dtype=np.int64)
    return Evaluation(round_, vehicle, read)


def _is_matrix(rows: Any, size: int) -> bool:
    return (
        isinstance(rows, list)
        and len(rows) == size
        and all(isinstance(row, list) and len(row) == size for row in rows)
        and all(type(n) is int and 0 <= n < 1 << 62 for row in rows for n in row)
    )
