"""What is good and what is not, each with a link to its evidence."""

from __future__ import annotations

from dataclasses import dataclass

from fleetseg.report import words
from fleetseg.report.figures import ReportFigures
from fleetseg.report.findings import FEW, LEVEL, MISSED
from fleetseg.text import size_text


@dataclass(frozen=True)
class Item:
    """A sentence, its linked part, and the section that the link leads to."""

    before: str
    link: str
    after: str
    section: str


def good(figures: ReportFigures) -> list[Item]:
    """List what speaks for the model; every item has a figure behind it."""
    rules = (_near_centralised, _above_alone, _all_answered, _nothing_left)
    return [item for item in (rule(figures) for rule in rules) if item is not None]


def not_good(figures: ReportFigures) -> list[Item]:
    """List what speaks against the model, or makes its figures look better than they are."""
    rules = (_missed, _behind_centralised, _optimistic, _few_frames, _failed, _traffic, _one_seed)
    return [item for item in (rule(figures) for rule in rules) if item is not None]


def _near_centralised(figures: ReportFigures) -> Item | None:
    own, pooled = figures.run.miou, figures.centralised and figures.centralised.miou
    if own is None or not pooled or not figures.equal_images or own < 0.9 * pooled:
        return None
    share = words.percent(int(100 * own / pooled) / 100)
    told = f": {words.score(own)} against {words.score(pooled)}."
    return Item(f"{share} of the centralised mIoU ", "at equal images", told, "against")


def _above_alone(figures: ReportFigures) -> Item | None:
    mious = {run.name: run.miou for run in figures.alone if run.miou is not None}
    own = figures.run.miou
    if own is None or not mious:
        return None
    mean, best = sum(mious.values()) / len(mious), max(mious.values())
    if own <= mean + LEVEL:
        return None
    who = "the mean vehicle alone" if len(mious) > 1 else "the vehicle alone"
    after = f" ({words.score(mean)})"
    if len(mious) > 1 and own > best + LEVEL:
        after += f", and above the best of {words.number(len(mious))} ({words.score(best)})"
    elif len(mious) > 1:
        after += f", but not above the best of {words.number(len(mious))} ({words.score(best)})"
    return Item(f"{words.capital(words.distance(own - mean))} above ", who, f"{after}.", "against")


def _all_answered(figures: ReportFigures) -> Item | None:
    if not figures.rounds or any(row.failed for row in figures.rounds):
        return None
    if figures.run.kind != "federated" or any(row.answered < row.asked for row in figures.rounds):
        return None
    return Item("", "Every request was answered", ": none late, refused or lost.", "fleet")


def _nothing_left(figures: ReportFigures) -> Item | None:
    if figures.run.kind != "federated" or not figures.rounds:
        return None
    return Item("No picture, label map or file name ", "left a vehicle", ".", "left")


def _missed(figures: ReportFigures) -> Item | None:
    missed = [
        row for row in figures.classes
        if row.critical and row.iou is not None and row.iou < MISSED and row.share >= FEW
    ]  # fmt: skip
    if not missed:
        return None
    missed.sort(key=lambda row: row.iou or 0.0)
    told = words.series([f"{row.name} ({words.score(row.iou)})" for row in missed])
    also = [row for row in missed if row.centralised is not None and row.centralised < MISSED]
    cure = "; pooling the pictures does not cure it" if len(also) == len(missed) else ""
    return Item("Safety-critical and ", "all but missed", f": {told}{cure}.", "classes")


def _behind_centralised(figures: ReportFigures) -> Item | None:
    behind = [r for r in figures.classes if r.gap is not None and r.gap < -0.02 and r.share >= FEW]
    if not behind or not figures.equal_images:
        return None
    told = words.series([f"{row.name} ({words.points(row.gap)})" for row in behind], 5)
    return Item(f"{words.capital(told)}: ", "points behind centralised", ".", "classes")


def _optimistic(figures: ReportFigures) -> Item | None:
    if figures.run.miou is None or not figures.domains:
        return None
    if any(row.seen is not True for row in figures.domains):
        unseen = [r for r in figures.domains if r.seen is False and r.miou is not None]
        if not unseen or len(unseen) == len(figures.domains):
            return None
        worst = min(unseen, key=lambda row: row.miou or 0.0)
        if (worst.miou or 0.0) >= figures.run.miou - LEVEL:
            return None
        after = f", where no vehicle trained: {words.score(worst.miou)}."
        return Item("Lower in ", worst.name, after, "domains")
    return Item(
        "The headline is optimistic: ",
        f"every {figures.by} that was scored",
        " is one that vehicles trained on.",
        "domains",
    )


def _few_frames(figures: ReportFigures) -> Item | None:
    if figures.scored_frames is None or figures.scored_frames >= 100:
        return None
    told = words.counted(figures.scored_frames, "frame")
    return Item("Few frames: the score rests on ", told, ".", "domains")


def _failed(figures: ReportFigures) -> Item | None:
    asked = sum(row.asked for row in figures.rounds)
    failed = sum(sum(row.failed.values()) for row in figures.rounds)
    if not failed:
        return None
    told = f" of {words.number(asked)} ({words.percent(failed / asked, 1)}) gave no usable answer."
    return Item("", words.counted(failed, "request"), told, "fleet")


def _traffic(figures: ReportFigures) -> Item | None:
    run = figures.run
    if not run.bytes_up:
        return None
    up, down = size_text(run.bytes_up), size_text(run.bytes_down)
    return Item(f"{up} ", "went up", f" and {down} down.", "fleet")


def _one_seed(figures: ReportFigures) -> Item | None:
    if figures.others or figures.run.miou is None:
        return None
    return Item("One run with one seed: the spread ", "over seeds", " is not known.", "against")
