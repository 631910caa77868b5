"""What a run records about its model in the model's folder: see `models.card`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetseg.config import Experiment
from fleetseg.config.data import SourceConfig
from fleetseg.evaluation.protocol import protocol_lines
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import Scores
from fleetseg.federation.fleet_facts import FLEET_FACTS, wanted_facts
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.records import effort, traffic
from fleetseg.runs.report import RunReport
from fleetseg.runs.weak_spots import weak_spots

CENTRALISED = (
    "Everything: this is the centralised baseline of a fleet, trained with all images in one place."
)
LOCAL = "Nothing: this is what one vehicle learns alone, a baseline of a fleet."
FLEET = (
    "No image, label map or file name. What did, {bytes} from the vehicles over all rounds, as the "
    "federation counted it:"
)


def model_record(
    experiment: Experiment,
    records: Sequence[RoundRecord],
    scored: Scored | None,
    scored_round: int,
    images: Mapping[str, int],
) -> dict[str, Any]:
    """Gather a run's facts for the model card.

    Args:
        experiment: the run's experiment.
        records: the records of all rounds.
        scored: the newest scores; None = there are none.
        scored_round: the round of the scored model.
        images: training images of each participating vehicle; empty = not known.
    """
    return {
        **_scores(scored, scored_round),
        "data": _data(experiment, images),
        "training": _training(experiment, records),
        **_left(experiment, records, scored),
        "weak_spots": weak_spots(scored),
    }


def record_of_run(report: RunReport) -> dict[str, Any]:
    """Gather the same facts from a run folder, including those of earlier versions."""
    end = report.end
    manifest = None if report.manifest is None else report.manifest.taking_part()
    images = {} if manifest is None else {name: len(own) for name, own in manifest.clients.items()}
    return model_record(
        report.experiment,
        report.rounds,
        None if end is None else end.scored,
        0 if end is None else end.scored_round,
        images,
    )


def _scores(scored: Scored | None, round_: int) -> dict[str, Any]:
    if scored is None or scored.overall is None:
        return {"scores": {}, "protocol": None}
    scores = scored.overall.to_dict()
    del scores["confusion"]
    return {
        "scores": scores,
        "scored_round": round_,
        "by_domain": _figures(scored.by_domain) if len(scored.by_domain) > 1 else {},
        "by_side": _figures(scored.by_side),
        "by_client": _figures(scored.by_client),
        "by_client_on": scored.clients_on,
        "protocol": None if scored.protocol is None else scored.protocol.to_dict(),
        "protocol_lines": [] if scored.protocol is None else protocol_lines(scored.protocol),
    }


def _figures(parts: Mapping[str, Scores]) -> dict[str, dict[str, float | None]]:
    told = {name: scores.to_dict() for name, scores in parts.items()}
    return {
        name: {key: one[key] for key in ("miou", "critical_miou")} for name, one in told.items()
    }


def _data(experiment: Experiment, images: Mapping[str, int]) -> list[str]:
    lines = [f"trained on {_source(config)}" for config in experiment.data.sources]
    lines += [f"scored on {_source(config)}" for config in experiment.data.evaluation]
    if images:
        most, least = max(images.values()), min(images.values())
        lines.append(
            f"{sum(images.values()):,} training images with {len(images)} "
            + ("vehicle" if len(images) == 1 else f"vehicles, {least:,} to {most:,} each")
        )
    return lines


def _source(config: SourceConfig) -> str:
    """Name a data set without its path, which is specific to one machine."""
    narrowed = [*config.sequences, *config.cities, *config.conditions]
    return f"{config.kind}, {config.split}" + (f" ({', '.join(narrowed)})" if narrowed else "")


def _training(experiment: Experiment, records: Sequence[RoundRecord]) -> dict[str, str]:
    spent, federation, training = effort(records), experiment.federation, experiment.training
    facts = {
        "method": experiment.method or f"{federation.aggregator}, objective {training.objective}",
        "rounds": f"{len(records):,}",
        "images seen": f"{spent.images_seen:,} in {spent.steps:,} steps of all vehicles together",
        "optimiser": f"{training.optimiser}, lr {training.lr:g}, batches of {training.batch_size}",
        "loss": training.loss,
        "seed": str(experiment.seed),
    }
    if experiment.model.pretrained:
        facts["began with weights of"] = experiment.model.pretrained
    if experiment.method == "" and experiment.baseline.kind:
        facts["method"] = f"{experiment.baseline.kind} baseline"
    return facts


def _left(
    experiment: Experiment, records: Sequence[RoundRecord], scored: Scored | None
) -> dict[str, Any]:
    kind = experiment.baseline.kind
    if kind:
        return {"left_note": CENTRALISED if kind == "centralised" else LOCAL, "left": []}
    note = FLEET.format(bytes=f"{traffic(records).bytes_up / 1e6:,.1f} MB")
    return {"left_note": note, "left": _messages(experiment, scored)}


def _messages(experiment: Experiment, scored: Scored | None) -> list[list[str]]:
    """List the kinds of messages that the experiment's vehicles send: see federation.messages."""
    asked = [FLEET_FACTS[n].why for n in wanted_facts(experiment) if FLEET_FACTS[n].is_reported]
    facts = "".join(f"; {why}" for why in asked)
    rows = [
        [
            "enrolment, once",
            f"number of images and labelled pixels, pixels per class{facts}",
            "weights of updates, and what the method asks of all samples at once",
        ],
        [
            "update, each round",
            "change of the weights, or of the part that is shared; numbers of images, pixels and "
            "steps; mean loss",
            "it is what is averaged; counts weigh it, the loss tells of its health",
        ],
    ]
    if scored is not None and (scored.conf_by_client or not experiment.data.evaluation):
        rows.append([
            "evaluation",
            "pixel counts (truth, prediction) per class over all test images of a vehicle",
            "scores are taken of their sum",
        ])  # fmt: skip
    if experiment.federation.statistics == "estimated":
        rows.append([
            "norm statistics",
            "of each channel of norm layers: count, sum and sum of squares over all images",
            "statistics of the whole fleet are made of them",
        ])  # fmt: skip
    rows.append(["failure", "a short reason, which names no file", "why there is no update"])
    return rows
