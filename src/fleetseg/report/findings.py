"""Headings that state what the figures show, each with a plain fallback where they show little.

A rule states only what is true of its figures: "level" within half a point, "ahead" beyond; equal
images only where both runs saw as many within 5 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fleetseg.report import words
from fleetseg.report.figures import (
    ClassFigures,
    ConfusionFigures,
    DomainFigures,
    FrameFigures,
    MixFigures,
    ReportFigures,
    RoundFigures,
    VehicleFigures,
)

LEVEL = 0.005
"""IoUs closer than half a point are called level: the seed alone changes them as much."""
FEW = 0.0005
"""A class below this share of the pixels says little: a few frames decide its IoU."""
MISSED, WEAK = 0.2, 0.5
"""A class below the first IoU is called all but missed, a critical class below the second weak."""


def headline(figures: ReportFigures) -> str:
    """State the result of the run."""
    run, fleet = figures.run, words.capital(words.counted(figures.num_vehicles, "vehicle"))
    if run.kind != "federated":
        where = "All pictures in one place" if run.kind == "centralised" else "A vehicle alone"
        return f"{where}: mIoU {words.score(run.miou)}" if run.miou is not None else where
    if not figures.is_over:
        return f"{fleet}, round {run.rounds} of {run.planned_rounds}: not finished"
    if run.miou is None:
        return f"{fleet} trained one model together; nothing was scored"
    pooled = figures.centralised.miou if figures.centralised else None
    if pooled and figures.equal_images:
        if run.miou > pooled + LEVEL:
            ahead = words.distance(run.miou - pooled)
            return f"{fleet} trained one model together, {ahead} above pooling their pictures"
        if run.miou >= pooled - LEVEL:
            return f"{fleet} trained one model together, level with pooling their pictures"
        share = words.percent(int(100 * run.miou / pooled) / 100)
        return f"{fleet} trained one model together and reach {share} of what pooling would give"
    return f"{fleet} trained one model together: mIoU {words.score(run.miou)}"


def verdict(figures: ReportFigures) -> str:
    """Say in a few sentences what the model is worth and what holds it back."""
    if not figures.is_scored:
        return "The model was not scored, so nothing can be said about its quality."
    said = [_cost(figures), _weakness(figures.classes), _away(figures.domains)]
    return " ".join(sentence for sentence in said if sentence)


def _cost(figures: ReportFigures) -> str:
    pooled, own = figures.centralised, figures.run.miou
    if pooled is None or pooled.miou is None or own is None or not figures.equal_images:
        return ""
    behind = pooled.miou - own
    if behind <= LEVEL:
        return "Federating costs nothing here, on this one comparison."
    cost = "costs little" if behind <= 0.03 else "costs a lot" if behind > 0.1 else "has a cost"
    return f"Federating {cost} here: {words.distance(behind)} of mIoU."


def _weakness(classes: Sequence[ClassFigures]) -> str:
    weak = weak_critical(classes)
    if weak:
        named = words.series([f"{row.name} ({row.iou:.2f})" for row in weak])
        what = "a weak safety-critical class" if len(weak) == 1 else "weak safety-critical classes"
        return f"It is held back by {what}: {named}."
    critical = [row for row in classes if row.critical and row.iou is not None]
    if not critical:
        return ""
    lowest = min(critical, key=lambda row: row.iou or 0.0)
    return f"Its lowest safety-critical class is {lowest.name} at {words.score(lowest.iou)}."


def weak_critical(classes: Sequence[ClassFigures]) -> list[ClassFigures]:
    """List the safety-critical classes with an IoU below 0.5, worst first."""
    rows = [row for row in classes if row.critical and row.iou is not None and row.iou < WEAK]
    return sorted(rows, key=lambda row: row.iou or 0.0)


def _away(domains: Sequence[DomainFigures]) -> str:
    seen = [row for row in domains if row.seen and row.miou is not None]
    unseen = [row for row in domains if row.seen is False and row.miou is not None]
    if not seen or not unseen:
        return ""
    worst = min(unseen, key=lambda row: row.miou or 0.0)
    best_seen = max(row.miou or 0.0 for row in seen)
    if (worst.miou or 0.0) >= best_seen - LEVEL:
        return ""
    return f"Where no vehicle trained, it scores {words.score(worst.miou)} ({worst.name})."


def against(figures: ReportFigures) -> str:
    """State the distance to the centralised run and to vehicles alone."""
    own, said = figures.run.miou, []
    pooled = figures.centralised.miou if figures.centralised else None
    if own is None or (pooled is None and not figures.alone):
        return "Nothing to compare with yet"
    if pooled is not None:
        said.append(_ahead_or_behind("Centralised", pooled - own))
    mious = [run.miou for run in figures.alone if run.miou is not None]
    if mious:
        who = "the mean vehicle" if len(mious) > 1 else "the one vehicle"
        said.append(_ahead_or_behind(f"alone, {who}", sum(mious) / len(mious) - own))
    return words.capital("; ".join(said))


def _ahead_or_behind(who: str, difference: float) -> str:
    if abs(difference) < LEVEL:
        return f"{who} is level"
    return f"{who} is {words.distance(difference)} {'ahead' if difference > 0 else 'behind'}"


def per_class(classes: Sequence[ClassFigures]) -> str:
    """Name the classes that lose most to centralised, or the lowest class."""
    if not classes:
        return "No class was scored"
    gaps = [row for row in classes if row.gap is not None and row.share >= FEW]
    if gaps:
        lose = [row.name for row in gaps if (row.gap or 0) < -0.02][:3]
        gain = [row.name for row in reversed(gaps) if (row.gap or 0) > 0.02][:2]
        if not lose and not gain:
            return "No class is more than two points from centralised"
        told = [f"{words.series(lose)} {_verb(lose, 'lose')} most to centralised"] if lose else []
        told += [f"{words.series(gain)} {_verb(gain, 'gain')}"] if gain else []
        return words.capital("; ".join(told))
    missed = [r.name for r in classes if r.iou is not None and r.iou < MISSED and r.share >= FEW]
    if missed:
        return words.capital(f"{words.series(missed)} {_be(missed)} all but missed")
    rated = [row for row in classes if row.iou is not None]
    if not rated:
        return "No class was scored"
    lowest = min(rated, key=lambda row: row.iou or 0.0)
    return words.capital(f"{lowest.name} is lowest, at {words.score(lowest.iou)}")


def _verb(names: Sequence[str], verb: str) -> str:
    return verb if len(names) > 1 else f"{verb}s"


def _be(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"


def progress(rounds: Sequence[RoundFigures]) -> str:
    """Say whether the mIoU was still rising in the last rounds."""
    scored = [(row.round, row.miou) for row in rounds if row.miou is not None]
    if len(scored) < 3:
        return f"{words.capital(words.counted(len(rounds), 'round'))}" + (
            "; scored too rarely to show a trend" if scored else ", never scored"
        )
    last, end = scored[-1]
    since, before = next(
        (each for each in reversed(scored[:-1]) if each[0] <= last - (last - scored[0][0]) / 4),
        scored[-2],
    )
    change = end - before
    length = last - since
    over = "in the last round" if length == 1 else f"in the last {words.number(length)} rounds"
    if change > 0.01:
        return f"Still rising at the end: {words.points(change)} points {over}"
    if change < -0.01:
        return f"Falling at the end: {words.points(change)} points {over}"
    best_round, best = max(scored, key=lambda each: each[1])
    if best > end + 0.01:
        return (
            f"Level at the end, {words.distance(best - end)} below its best in round {best_round}"
        )
    return "Level at the end"


def vehicles(rows: Sequence[VehicleFigures], classes: Sequence[str]) -> str:
    """Name the vehicle with the lowest score, and whether classes that it hardly has explain it."""
    rated = [row for row in rows if row.miou is not None]
    if not rated:
        return "Vehicles were not scored individually"
    if len(rated) == 1:
        return f"{rated[0].name} scores {words.score(rated[0].miou)}"
    worst, best = rated[0], rated[-1]
    spread = (best.miou or 0.0) - (worst.miou or 0.0)
    if spread < LEVEL:
        return "All vehicles score within half a point of each other"
    without = _without_rare(worst)
    others = [value for value in map(_without_rare, rated[1:]) if value is not None]
    rare = [
        name
        for name, iou, share in zip(classes, worst.iou_C, worst.share_C, strict=True)
        if iou is not None and share < FEW
    ]
    if rare and without is not None and others and without > min(others) + LEVEL:
        what = words.series(rare, 2)
        return (
            f"{worst.name} is last only because of {what}, which it hardly holds: "
            f"{words.score(without)} without"
        )
    below = f"{words.distance(spread)} below {best.name}"
    return f"{worst.name} scores lowest: {words.score(worst.miou)}, {below}"


def _without_rare(row: VehicleFigures) -> float | None:
    """Return the mean IoU over the classes of which the vehicle has more than a few pixels."""
    pairs = zip(row.iou_C, row.share_C, strict=True)
    ious = [iou for iou, share in pairs if iou is not None and share >= FEW]
    return sum(ious) / len(ious) if ious else None


def mix(rows: Sequence[MixFigures], classes: Sequence[str], fleet_share: Sequence[float]) -> str:
    """Name the vehicle least like the fleet, and the classes that it lacks or has most of."""
    if not rows:
        return "Which classes the vehicles hold is not known"
    odd = rows[0]
    if odd.distance < 0.1:
        return "The vehicles hold much the same classes"
    told = []
    common = [k for k in range(len(classes)) if fleet_share[k] >= 0.005]
    lacking = [classes[k] for k in common if odd.share_C[k] < fleet_share[k] / 50]
    if lacking:
        told.append(f"hardly any {words.series(lacking, 2)}")
    ratios = [(odd.log_ratio_C[k], k) for k in common if odd.log_ratio_C[k] is not None]
    if ratios:
        ratio, k = max(ratios, key=lambda pair: pair[0] or 0.0)
        if ratio is not None and ratio >= 1:
            told.append(f"{2**ratio:.0f} times the fleet’s share of {classes[k]}")
    return f"{odd.name} is least like the fleet" + (f": {', '.join(told)}" if told else "")


def attendance(figures: ReportFigures) -> str:
    """Count the requests that were answered and those that were not."""
    asked = sum(row.asked for row in figures.rounds)
    failed = sum(sum(row.failed.values()) for row in figures.rounds)
    answered = sum(row.answered for row in figures.rounds)
    if not asked:
        return "No vehicle has been asked yet"
    if answered == asked:
        return "Every request was answered"
    if not failed:
        return f"Of {asked:,} requests, {answered:,} answers were used and none failed"
    kinds = Counter[str]()
    for row in figures.rounds:
        kinds.update(row.failed)
    told = [f"{words.number(count)} {kind}" for kind, count in kinds.most_common()]
    requests = f"Of {words.number(asked)} requests, {words.number(failed)} gave no usable answer"
    return f"{requests}: {words.series(told)}"


def domains(rows: Sequence[DomainFigures]) -> str:
    """Say how much is lost on domains that nobody trained on, or name the lowest domain."""
    rated = [row for row in rows if row.miou is not None]
    if not rated:
        return "No domain was scored"
    unseen = [row for row in rated if row.seen is False]
    seen = [row for row in rated if row.seen]
    worst = min(rated, key=lambda row: row.miou or 0.0)
    if not unseen:
        known = all(row.seen for row in rated)
        if len(rated) == 1:
            only = f"One domain only, {worst.name}"
            return f"{only}, which vehicles trained on" if known else only
        told = f"{worst.name} is lowest at {words.score(worst.miou)}"
        return f"{told}; vehicles trained on all of these" if known else told
    lowest = min(unseen, key=lambda row: row.miou or 0.0)
    if seen:
        best = max(row.miou or 0.0 for row in seen)
        lost = best - (lowest.miou or 0.0)
        if lost > LEVEL:
            return (
                f"From {words.score(best)} where vehicles trained to {words.score(lowest.miou)} in "
                f"{lowest.name}, where none did"
            )
        return "Domains that no vehicle trained on score as well as the rest"
    return f"No vehicle trained on these; {lowest.name} is lowest at {words.score(lowest.miou)}"


def confusion(figures: ConfusionFigures | None, num_shown: int = 3) -> str:
    """Say what the class with the lowest recall is taken for."""
    if figures is None:
        return "Nothing was scored"
    row = figures.share_CC[0]
    if sum(row) == 0:
        return "No class has a pixel"
    taken = [
        (share, name)
        for k, (share, name) in enumerate(zip(row, figures.classes, strict=True))
        if k != 0 and share >= 0.05
    ]
    name, found = words.capital(figures.classes[0]), words.percent(row[0])
    if not taken:
        return f"{name} has the lowest recall: {found} of its pixels are found"
    told = [f"{other} ({words.percent(s)})" for s, other in sorted(taken, reverse=True)]
    return f"{name} is taken for {words.series(told[:num_shown])}"


def pictures(frames: Sequence[FrameFigures]) -> str:
    """Say how many pixels of the frames shown are wrong, and which mistake is most frequent."""
    if not frames:
        return "No predictions were kept"
    shares = [frame.wrong_share for frame in frames]
    low, high = words.percent(min(shares), 1), words.percent(max(shares), 1)
    told = f"From {low} to {high} of pixels wrong" if len(frames) > 1 else f"{low} of pixels wrong"
    firsts = [frame.mistakes[0][:2] for frame in frames if frame.mistakes]
    if firsts:
        most = max(firsts, key=firsts.count)
        if firsts.count(most) * 2 > len(frames):
            return f"{told}; mostly {most[0]} taken for {most[1]}"
    return told
