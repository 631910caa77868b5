"""The four numbers below the headline."""

from __future__ import annotations

from fleetseg.report import words
from fleetseg.report.figures import IntervalFigures, ReportFigures
from fleetseg.text import size_text


def key_figures(f: ReportFigures) -> list[dict[str, str]]:
    """Choose the numbers, each with its name and the caveats that belong to it."""
    if not f.is_scored:
        return []
    critical = [row.name for row in f.classes if row.critical]
    found = [
        {
            "name": "mIoU",
            "value": words.score(f.run.miou),
            "note": f"{len(f.classes)} classes, {f.scored_on}" + _surely(f.intervals),
        },
        {
            "name": "critical mIoU",
            "value": words.score(f.run.critical_miou),
            "note": ", ".join(critical) or "no critical class",
        },
    ]
    pooled = f.centralised.miou if f.centralised else None
    if pooled is not None and f.run.miou is not None:
        how = "at equal images" if f.equal_images else "which saw a different number of images"
        gap = f.intervals.gap_miou if f.intervals else None
        sure = f"; {words.points_between(gap.low, gap.high)} with other frames" if gap else ""
        found.append(
            {
                "name": "points against centralised",
                "value": words.points(f.run.miou - pooled),
                "note": f"{how}; one run each{sure}",
            }
        )
    unseen = [row for row in f.domains if row.seen is False and row.miou is not None]
    if unseen and len(f.domains) > 1:
        worst = min(unseen, key=lambda row: row.miou or 0.0)
        note = f"{worst.name}, the lowest domain that no vehicle trained on"
        found.append({"name": "mIoU, unseen", "value": words.score(worst.miou), "note": note})
    if f.vehicles and f.vehicles[0].miou is not None:
        worst_vehicle = f.vehicles[0]
        note = f"{worst_vehicle.name}, on its {f.vehicles_on}"
        found.append(
            {"name": "worst vehicle", "value": words.score(worst_vehicle.miou), "note": note}
        )
    if f.run.bytes_up:
        note = f"in {words.counted(f.run.rounds, 'round')}, and {size_text(f.run.bytes_down)} down"
        found.append({"name": "sent up", "value": size_text(f.run.bytes_up), "note": note})
    return found[:4]


def _surely(intervals: IntervalFigures | None) -> str:
    """Give the mIoU's interval under resampling of frames."""
    if intervals is None or intervals.miou is None:
        return ""
    sure = words.percent(intervals.confidence)
    low, high = intervals.miou.low, intervals.miou.high
    return f"; {sure} interval over frames: {words.between(low, high)}"
