"""`fleetseg release`: may this model go into the vehicles?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment
from fleetseg.data.partition.manifest import Entry
from fleetseg.data.pool import Progress
from fleetseg.data.store.cache import Picked
from fleetseg.errors import ConfigError, ModelError
from fleetseg.evaluation.protocol import ScoredSet
from fleetseg.evaluation.scores import Scores
from fleetseg.files import write_atomic
from fleetseg.judging.calibration import expected_calibration_error
from fleetseg.judging.corruptions import SEVERITIES
from fleetseg.judging.counts import Measured
from fleetseg.judging.measure import Frame, measure
from fleetseg.judging.policy import Policy
from fleetseg.models.folder import WEIGHTS, find_model
from fleetseg.release import page, registry
from fleetseg.release.frames import frames_of
from fleetseg.release.judge import (
    Check,
    Sides,
    critical_ious,
    enough_vehicles,
    judge,
    refuses,
)
from fleetseg.release.latency import latencies_ms
from fleetseg.release.on_clients import NO_FRAMES, Judged, measure_on_clients
from fleetseg.release.pictures import Panels, choose, draw
from fleetseg.runs.folder import environment, has_run
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.protocols import files_digest
from fleetseg.runs.scored_frames import ScoredFrames, open_scored_frames, own_experiment
from fleetseg.text import listing

FORMAT = 1
"""Format version of release.json."""


@dataclass(frozen=True)
class Question:
    """What is to be judged, and how."""

    candidate: Path  # a run folder or a model folder
    models: Path  # the registry
    policy: Policy = field(default_factory=Policy)
    against: Path | None = None  # a run, a model or a registry; None = the registry's current one
    on: Experiment | None = None  # where both are scored; None = where the candidate's run was
    on_clients: bool = False  # on frames that its vehicles hold out; only sums leave them
    fleet: Path | None = None  # the same, on the vehicles of a networked fleet
    wait_s: float = 60.0  # for absent vehicles of that fleet
    out: Path | None = None  # folder for release.json and the page; None = beside the candidate
    dry_run: bool = False  # put nothing into the registry
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Decision:
    """The decision of the gate, and the reasons."""

    promoted: bool
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    against: str  # "" = none: this is the first release
    out: Path
    release: registry.Listed | None  # in the registry; None if refused, or in a dry run


@dataclass(frozen=True)
class _Counted:
    """The counts of the models, and the frames they are from."""

    sides: Sides
    scored_on: tuple[ScoredSet, ...]
    frames: tuple[tuple[Frame, ...], ...]  # for each model; () on clients
    bad: tuple[str, ...] = ()
    judged: Judged | None = None  # by vehicles; None = by this process


def decide(
    question: Question,
    progress: Progress | None = None,
    scoring: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Decision:
    """Judge a candidate by a policy, write the findings, and release it if it is promoted.

    `progress` is called while data are read, `scoring` while frames are scored; `tell` reports what
    a fleet is waiting for.

    Raises:
        ModelError: no model, or its classes differ from the current model's.
        ConfigError: nothing to score on, or a model that cannot be scored without a client.
        DataError: no usable labelled frame.
        CheckpointError: the registry cannot be written, or changed meanwhile.
        OutOfMemory: not even one image fits.
    """
    policy, judged_by = question.policy, registry.current_number(question.models)
    path, against = _against(question)
    paths = [question.candidate, *([path] if path else [])]
    models = [ready_model(one, question.device, question.precision) for one in paths]
    _require_same_classes(models)
    counted = _count(question, models, progress, scoring, tell)
    checks = (*_enough(counted.judged, policy), *judge(counted.sides, policy))
    deciding = [check for check in checks if refuses(check, policy)]
    promoted = not deciding
    reasons = tuple(check.reason for check in deciding) or (_kept(checks, against),)
    notes = _notes(checks, policy, counted, models)
    panels = _panels(counted, models, deciding, policy)
    record = {
        "format": FORMAT,
        "decision": "promoted" if promoted else "refused",
        "reasons": list(reasons),
        "notes": list(notes),
        "decided": datetime.now(UTC).isoformat(timespec="seconds"),
        "against": against,
        **_facts(question, models, counted, checks),
    }
    out, html = _out(question), page.page(record, counted.sides.space, panels)
    _write(out, record, html)
    release = None
    if promoted and not question.dry_run:
        release = registry.publish(question.models, question.candidate, record, html, judged_by)
    return Decision(promoted, checks, reasons, notes, against, out, release)


def _write(out: Path, record: Mapping[str, Any], html: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / registry.PAGE, html)
    write_atomic(out / registry.RECORD, json.dumps(record, indent=1) + "\n")


def _out(question: Question) -> Path:
    return question.out or question.candidate / "release"


def _against(question: Question) -> tuple[Path | None, str]:
    """Find the current model and its name; ("", None) if there is none yet."""
    given = question.against
    folder = question.models if given is None else given
    if (number := registry.current_number(folder)) is not None:
        return registry.current_folder(folder), f"release {number:04d}"
    return (None, "") if given is None else (given, str(given))


def _require_same_classes(models: Sequence[ReadyModel]) -> None:
    first, *others = models
    for other in others:
        if other.space.classes != first.space.classes:
            raise ModelError(
                "the current model has other classes than the candidate",
                where=other.where,
                got=other.space.name,
                expected=first.space.name,
                cure="Release it into a registry of its own: --models DIR",
            )


def _count(
    question: Question,
    models: Sequence[ReadyModel],
    progress: Progress | None,
    scoring: Progress | None,
    tell: Callable[[str], None],
) -> _Counted:
    policy, experiment = question.policy, _scored_on(question)
    if question.fleet is not None or question.on_clients:
        judged = _judged(question, models, experiment, progress, scoring, tell)
        sides = _sides(models, judged.measured, policy, "vehicle")
        return _Counted(sides, judged.sets, (), judged=judged)
    opened = [open_scored_frames(experiment, ready, progress) for ready in models]
    frames = [frames_of(scored) for scored in opened]
    assert len({tuple(frame.row for frame in own) for own in frames}) == 1, "other frames"
    names = ("the candidate", "the current model")
    measured = [
        measure(ready, own, policy, scoring, f"frames with {name}")
        for ready, own, name in zip(models, frames, names, strict=False)
    ]
    sides = _sides(models, measured, policy, "image")
    return _Counted(sides, _sets(opened[0]), tuple(frames), opened[0].bad)


def _judged(
    question: Question,
    models: Sequence[ReadyModel],
    experiment: Experiment,
    progress: Progress | None,
    scoring: Progress | None,
    tell: Callable[[str], None],
) -> Judged:
    policy = question.policy
    if question.fleet is None:
        return measure_on_clients(models, experiment, policy, progress, scoring)
    from fleetseg.release.on_fleet import measure_on_fleet

    return measure_on_fleet(
        models,
        experiment,
        policy,
        question.fleet,
        log_folder=_out(question),
        wait_s=question.wait_s,
        scoring=scoring,
        tell=tell,
    )


def _sides(
    models: Sequence[ReadyModel], measured: Sequence[Measured], policy: Policy, unit: str
) -> Sides:
    current = measured[1] if len(models) > 1 else None
    latency = tuple(latencies_ms(models, policy.latency.images))
    return Sides(models[0].space, measured[0], current, latency, unit)


def _scored_on(question: Question) -> Experiment:
    if question.on is not None:
        return question.on
    if not has_run(question.candidate):
        raise ConfigError(
            "nothing to score on: the candidate is not a run folder",
            where=question.candidate,
            cure="Name an experiment: --on EXPERIMENT.toml",
        )
    return own_experiment(question.candidate)


def _sets(scored: ScoredFrames) -> tuple[ScoredSet, ...]:
    """Describe the scored sets in the form of a run's protocol."""
    sets = []
    for part in scored.sets:
        pairs, digest = part.scored.pairs, ""
        if isinstance(pairs, Picked):
            files = [pairs.stores[store].digests[index] for store, index in pairs.places]
            digest = files_digest(Entry("", *both) for both in files)
        sets.append(ScoredSet(part.name, len(part.scored), digest))
    return tuple(sets)


def _kept(checks: Sequence[Check], against: str) -> str:
    if not against:
        return "the first release: there is no current model to compare it with"
    judged = sum(check.verdict != "not judged" for check in checks)
    return f"nothing falls by more than the policy allows ({judged} checks)"


def _notes(
    checks: Sequence[Check], policy: Policy, counted: _Counted, models: Sequence[ReadyModel]
) -> tuple[str, ...]:
    """List what a person should know although it does not decide."""
    notes = [
        f"unsure: {check.reason}"
        for check in checks
        if check.verdict == "unsure" and not refuses(check, policy)
    ]
    notes += [check.reason for check in checks if check.verdict == "not judged"]
    digests = {registry.sha256_of(_weights(ready)) for ready in models}
    if len(models) > len(digests):
        notes.append("the candidate has the weights of the current model, byte for byte")
    scores = policy.scores
    if len(models) == 1 and not (scores.least_miou or scores.least_critical_iou):
        notes.append(
            "nothing was required of this model: there is none to compare it with, and the "
            "policy sets neither scores.least_miou nor scores.least_critical_iou"
        )
    critical = critical_ious(counted.sides)
    if critical and not scores.least_critical_iou:
        name, iou = min(critical.items(), key=lambda one: one[1])
        notes.append(
            "the policy sets no minimum for safety-critical classes (scores.least_critical_iou); "
            f"the candidate's weakest is {name}, with an IoU of {iou:.3f}"
        )
    if not models[0].space.critical:
        notes.append(
            "no class of this label space is safety-critical, so none is judged on its own"
        )
    if counted.judged is not None and (silent := counted.judged.silent):
        who = listing([f"{name} ({why})" for name, why in sorted(silent.items())], 20)
        notes.insert(0, f"{len(silent)} of {len(silent) + len(counted.judged.sets)} vehicles did "
                     f"not judge: {who}")  # fmt: skip
    return (*notes, *(f"bad sample skipped: {text}" for text in counted.bad))


def _weights(ready: ReadyModel) -> Path:
    assert ready.folder is not None
    return find_model(ready.folder) / WEIGHTS


def _panels(
    counted: _Counted, models: Sequence[ReadyModel], deciding: Sequence[Check], policy: Policy
) -> tuple[Panels, ...]:
    if len(counted.frames) < 2:
        return ()  # no current model, or frames that stay in the vehicles
    candidate, current = zip(models, counted.frames, strict=True)
    chosen = choose(counted.sides, deciding)
    return draw(chosen, candidate, current, policy.bootstrap.seed)


def _facts(
    question: Question,
    models: Sequence[ReadyModel],
    counted: _Counted,
    checks: Sequence[Check],
) -> dict[str, Any]:
    sides, policy, hardware = counted.sides, question.policy, models[0].hardware
    measured = [sides.candidate, *([sides.current] if sides.current else [])]
    both = [
        _model_facts(ready, one, sides, latency_ms)
        for ready, one, latency_ms in zip(models, measured, sides.latency_ms, strict=True)
    ]
    return {
        "candidate": both[0],
        "current": both[1] if len(both) > 1 else None,
        "checks": [check.to_dict() for check in checks],
        "scored_on": [[one.name, one.frames, one.digest] for one in counted.scored_on],
        "judges": "vehicles, of which only sums are known" if counted.judged else "server",
        "vehicles": _attendance(counted.judged),
        "label_space": sides.space.name,
        "policy": policy.model_dump(mode="json"),
        "policy_sha256": policy.digest,
        "environment": environment(hardware.name, hardware.precision),
    }


def _enough(judged: Judged | None, policy: Policy) -> tuple[Check, ...]:
    if judged is None:
        return ()
    asked = len(judged.sets) + sum(why != NO_FRAMES for why in judged.silent.values())
    return (enough_vehicles(len(judged.sets), asked, policy),)


def _attendance(judged: Judged | None) -> dict[str, Any] | None:
    """Say which vehicles judged on which frames, and which did not; None if the server judged."""
    if judged is None:
        return None
    names = [one.name for one in judged.sets]
    return {"judged": names, "silent": dict(judged.silent), "over": judged.over}


def _model_facts(
    ready: ReadyModel, measured: Measured, sides: Sides, latency_ms: float
) -> Mapping[str, Any]:
    space, clean = sides.space, measured.clean
    domains = {name: Scores.of(clean.of_domain(name).total_CC, space) for name in clean.domains}
    kinds = sorted({kind for kind, _ in measured.worse})
    return {
        "model": ready.where,
        "network": ready.segmenter.name,
        "size_hw": list(ready.size_hw),
        "sha256": registry.sha256_of(_weights(ready)),
        **Scores.of(clean.total_CC, space).to_dict(),
        "by_domain": {name: scores.to_dict() for name, scores in domains.items()},
        "ece": _or_none(expected_calibration_error(measured.bins_3B)),
        "confidence_bins": measured.bins_3B.tolist(),
        "robustness": {
            kind: [
                _or_none(Scores.of(measured.worse[kind, severity].total_CC, space).miou)
                for severity in SEVERITIES
            ]
            for kind in kinds
        },
        "latency_ms": round(latency_ms, 3),
    }


def _or_none(value: float) -> float | None:
    return None if value != value else float(value)
