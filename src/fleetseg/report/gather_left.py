"""What left the vehicles: the kinds of messages of a run, their number and their size."""

from __future__ import annotations

from fleetseg.evaluation.scored import Scored
from fleetseg.federation.fleet_facts import FLEET_FACTS, wanted_facts
from fleetseg.federation.statistics import STATISTICS
from fleetseg.report.figures import MessageFigures
from fleetseg.runs.report import RunReport
from fleetseg.text import size_text


def messages_sent(report: RunReport, scored: Scored | None) -> tuple[MessageFigures, ...]:
    """List what vehicles sent, by the table of federation.messages; empty for a baseline."""
    experiment = report.experiment
    if experiment.baseline.kind or not report.rounds:
        return ()
    classes, uplink = report.space.num_classes, experiment.federation.uplink
    told = [fact.why for fact in map(FLEET_FACTS.get, wanted_facts(experiment))
            if fact and fact.is_reported]  # fmt: skip
    answers = sum(len(record.accepted) for record in report.rounds)
    up = sum(record.bytes_up for record in report.rounds)
    rows = [
        MessageFigures(
            "Enrolment",
            "number of images, of labelled pixels to train and to score on, and of pixels of each "
            "class" + "".join(f"; {why}" for why in told),
            "once",
            f"{classes + 3} counts",
        ),
        MessageFigures(
            "Update",
            "change of the model by local training"
            + ("" if uplink == "none" else f", as {uplink}")
            + "; images and pixels held; steps taken, images seen, mean loss of the round",
            f"{answers:,}",
            f"{size_text(up / answers)} on average" if answers else "–",
        ),
    ]
    if STATISTICS[experiment.federation.statistics].estimated:
        what = "sums of what norm layers see, over all of its images"
        rows.append(MessageFigures("Norm statistics", what, "per scoring", "–"))
    if scored is not None and scored.conf_by_client:
        what = f"{classes} × {classes} tables of pixel counts (truth, prediction), one per domain"
        counts = f"{classes * classes:,} counts"
        rows.append(MessageFigures("Evaluation", what, "per scoring on vehicles", counts))
    failed = sum(len(record.failures) for record in report.rounds)
    if failed:
        what = "a short reason, in place of an update"
        rows.append(MessageFigures("Failure", what, f"{failed:,} at most", "a line"))
    return tuple(rows)
