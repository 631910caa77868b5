"""The templates' input: figures in the order and the groups in which they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetseg.report import charts, findings, lists, marks, words
from fleetseg.report.figures import MixFigures, ReportFigures, RunFigures
from fleetseg.report.gather import Gathered
from fleetseg.report.intervals import about_intervals
from fleetseg.report.key_figures import key_figures
from fleetseg.runs.comparison import Comparison
from fleetseg.runs.comparison_tables import remarks_of, tables_of
from fleetseg.text import size_text

TOPICS = {
    "runs": "Runs side by side",
    "against": "Against centralised and alone",
    "classes": "Per class",
    "curves": "Rounds",
    "vehicles": "Vehicles and classes",
    "mix": "How unlike are the vehicles?",
    "pictures": "Pictures",
    "fleet": "Participation and traffic",
    "left": "What left each vehicle",
    "domains": "Seen and unseen",
    "confusion": "Confusion",
    "configuration": "Configuration",
    "environment": "Environment and hashes",
}
"""Sections in their order. Sections that a baseline or a single run lacks are left out."""

_WORST, _BEST, _ALL = 10, 3, 20
"""Beyond the last number of vehicles, only this many of the first and the last stay unfolded."""


@dataclass(frozen=True)
class Row:
    """One run, or the mean of several, on a scale."""

    name: str
    note: str
    value: float | None
    css: str
    ticks: tuple[float, ...] = ()


def context(gathered: Gathered) -> dict[str, Any]:
    """Return everything that the page's templates read."""
    f = gathered.figures
    names = [row.name for row in f.attendance]
    return {
        "f": f,
        "contents": _contents(gathered),
        "findings": _findings(gathered),
        "key": key_figures(f),
        "hero": f.frames[len(f.frames) // 2] if f.frames else None,
        "good": lists.good(f),
        "not_good": lists.not_good(f),
        "unit": marks.Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        "few": findings.FEW,
        "short": words.short_names(names),
        "class_names": _class_names(f),
        "critical": frozenset(row.name for row in f.classes if row.critical),
        "about_intervals": about_intervals(f),
        "against": _panels(f),
        "against_table": _against_table(f),
        "comparison": _comparison(gathered.comparison),
        "run_names": [run.name for run in (f.run, *f.others)],
        "charts": charts.charts(f),
        "line_names": charts.legend(f),
        "flags": charts.flags(f),
        "sparks": charts.sparks(f.classes),
        "last_round": _round_texts(f)[-1] if f.rounds else "",
        **_folded("vehicles", f.vehicles),
        "personal": any(row.personal_miou is not None for row in f.vehicles),
        "heat_order": _heat_order(f),
        **_folded("mix", f.mix),
        "mix_rows": lambda row: _mix_rows(row, f),
        **_folded("looks", f.looks),
        **_folded("attendance", f.attendance),
        "num_rounds": max(1, f.run.rounds),
        "traffic": _traffic(f),
        "reasons": f.reasons,
        "left": f.left,
        "domain_groups": _domain_groups(f),
        "picture_rounds": [n for n, _, _ in f.frames[0].ids_by_round] if f.frames else [],
        "legend": list(zip(_class_names(f), f.colours, strict=False)),
        "no_pictures": _no_pictures(f),
        "data": page_data(f),
    }


def _contents(gathered: Gathered) -> list[tuple[str, str]]:
    f = gathered.figures
    absent = set() if f.others else {"runs"}  # baselines have a section of their own
    if f.run.kind != "federated":
        absent |= {"against", "left"}
    elif not f.left:
        absent |= {"left"}
    return [(section, topic) for section, topic in TOPICS.items() if section not in absent]


def _findings(gathered: Gathered) -> dict[str, str]:
    f, names = gathered.figures, _class_names(gathered.figures)
    fleet_share = _fleet_share(f)
    return {
        "headline": findings.headline(f),
        "verdict": findings.verdict(f),
        "runs": _best_run(gathered.comparison),
        "against": findings.against(f),
        "classes": findings.per_class(f.classes),
        "curves": findings.progress(f.rounds),
        "vehicles": findings.vehicles(f.vehicles, names),
        "mix": findings.mix(f.mix, names, fleet_share),
        "pictures": findings.pictures(f.frames),
        "fleet": findings.attendance(f),
        "domains": findings.domains(f.domains),
        "confusion": findings.confusion(f.confusion),
        "configuration": _settings_heading(f),
    }


def _class_names(f: ReportFigures) -> list[str]:
    """Return the names of the classes in the order of columns `_C`."""
    return list(f.class_names)


def _fleet_share(f: ReportFigures) -> list[float]:
    """Return the whole fleet's class shares, from any vehicle's shares and ratios."""
    shares = [0.0] * len(f.class_names)
    for row in f.mix:
        for k, (share, ratio) in enumerate(zip(row.share_C, row.log_ratio_C, strict=True)):
            if ratio is not None:
                shares[k] = share / 2**ratio
    return shares


def _settings_heading(f: ReportFigures) -> str:
    number = words.counted(len(f.changed), "setting")
    told = "differs" if len(f.changed) == 1 else "differ"
    if f.others:
        return words.capital(f"{number} {told} between the runs")
    return words.capital(f"{number} {told} from the defaults")


def _best_run(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    rated = [(row.miou.mean, row.name) for row in comparison.rows if row.miou]
    if len(rated) < 2:
        return "Nothing to rank"
    rated.sort(reverse=True)
    ahead = rated[0][0] - rated[1][0]
    if ahead < findings.LEVEL:
        return f"{rated[0][1]} and {rated[1][1]} are level at the top"
    return f"{rated[0][1]} is highest, {words.distance(ahead)} above {rated[1][1]}"


def _panels(f: ReportFigures) -> list[dict[str, Any]]:
    if not f.centralised and not f.alone:
        return []
    figures: dict[str, Callable[[RunFigures], float | None]] = {
        "mIoU": lambda run: run.miou,
        "Critical mIoU": lambda run: run.critical_miou,
    }
    panels = []
    for title, of in figures.items():
        alone = tuple(sorted(v for v in map(of, f.alone) if v is not None))
        rows = []
        if f.centralised:
            note = "equal images" if f.equal_images else "different number of images"
            rows.append(Row("Centralised", note, of(f.centralised), "cen"))
        rows.append(Row("Federated", "this run", of(f.run), "fed"))
        rows += [Row(run.name, "federated", of(run), f"run-{min(k, 5)}")
                 for k, run in enumerate(f.others, 1)]  # fmt: skip
        if alone:
            note = words.counted(len(alone), "vehicle")
            rows.append(Row("Alone", note, sum(alone) / len(alone), "alone", alone))
        values = [row.value for row in rows if row.value is not None]
        panels.append({"title": title, "axis": marks.axis([*values, *alone]), "rows": rows})
    return panels


def _against_table(f: ReportFigures) -> list[dict[str, Any]]:
    rows = [_table_row(f.centralised, "Centralised", "all pictures in one place")] if (
        f.centralised) else []  # fmt: skip
    rows.append({**_table_row(f.run, "Federated", "this run"), "subject": True})
    rows += [_table_row(run, run.name, "federated") for run in f.others]
    if len(f.alone) == 1:
        rows.append(_table_row(f.alone[0], "Alone", f.alone[0].name))
    elif f.alone:
        rated = [run for run in f.alone if run.miou is not None]
        best = max(rated, key=lambda run: run.miou or 0.0, default=None)
        rows.append(_mean_row(f.alone))
        if best:
            rows.append(_table_row(best, "Alone, best", best.name))
    return rows


def _table_row(run: RunFigures, name: str, note: str) -> dict[str, Any]:
    sent = run.bytes_up + run.bytes_down
    moved = size_text(sent) if sent else "its pictures" if run.kind == "centralised" else "nothing"
    return {
        "name": name, "note": note, "miou": run.miou, "critical": run.critical_miou,
        "images": run.images, "steps": run.steps, "in_a_row": run.steps_in_a_row,
        "moved": moved, "subject": False,
    }  # fmt: skip


def _mean_row(runs: Sequence[RunFigures]) -> dict[str, Any]:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    row = _table_row(runs[0], "Alone, mean", f"of {words.counted(len(runs), 'vehicle')}")
    return row | {
        "miou": mean([run.miou for run in runs]),
        "critical": mean([run.critical_miou for run in runs]),
        "images": round(sum(run.images for run in runs) / len(runs)),
        "steps": round(sum(run.steps for run in runs) / len(runs)),
        "in_a_row": round(sum(run.steps_in_a_row for run in runs) / len(runs)),
    }


def _comparison(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"tables": [], "remarks": []}
    remarks = [line.replace("! safety", "◆ safety") for line in remarks_of(comparison)]
    return {"tables": tables_of(comparison), "remarks": remarks}


def _folded(name: str, rows: Sequence[Any]) -> dict[str, Any]:
    """Split a long list: the first ten and the last three, and the rest to be folded."""
    if len(rows) <= _ALL:
        return {f"{name}_shown": list(rows), f"{name}_rest": []}
    shown = [*rows[:_WORST], *rows[-_BEST:]]
    return {f"{name}_shown": shown, f"{name}_rest": list(rows[_WORST:-_BEST])}


def _heat_order(f: ReportFigures) -> list[int]:
    """Order columns of the heat map: critical classes first, each group by mean, worst first."""
    if not f.vehicles:
        return []
    critical = {row.name for row in f.classes if row.critical} or set(f.critical_names)

    def mean(k: int) -> float:
        column = [row.iou_C[k] for row in f.vehicles if row.share_C[k] >= findings.FEW]
        known = [iou for iou in column if iou is not None]
        return sum(known) / len(known) if known else 2.0

    order = range(len(f.class_names))
    return sorted(order, key=lambda k: (f.class_names[k] not in critical, mean(k)))


def _mix_rows(row: MixFigures, f: ReportFigures) -> list[dict[str, Any]]:
    """Lay out bars from a sixteenth to four times the fleet's share, which lies at two thirds."""
    found = []
    shares = _fleet_share(f)
    for k in sorted(range(len(f.class_names)), key=lambda k: -shares[k]):
        ratio, share = row.log_ratio_C[k], row.share_C[k]
        if shares[k] == 0:
            continue
        if ratio is None:
            label, low, high, far = "none", 0.0, 66.67, True
        else:
            at = 66.67 + max(-4.0, min(2.0, ratio)) * 100 / 6
            low, high, far = min(at, 66.67), max(at, 66.67), abs(ratio) > 2
            label = f"{2**ratio:.2f} times the fleet’s share"
        found.append(
            {
                "name": f.class_names[k],
                "label": label,
                "share": share,
                "x": f"{low:.2f}",
                "width": f"{high - low:.2f}",
                "css": "far" if far else "near",
            }
        )
    return found


def _traffic(f: ReportFigures) -> str:
    run = f.run
    if run.kind != "federated":
        return "A baseline sends nothing: its one client is the server’s own."
    answered = sum(row.answered for row in f.rounds)
    if not answered:
        return "No update arrived."
    asked = sum(row.asked for row in f.rounds)
    up, down = size_text(run.bytes_up / answered), size_text(run.bytes_down / max(1, asked))
    return (
        f"{size_text(run.bytes_up)} went up and {size_text(run.bytes_down)} down in all: about "
        f"{up} for each answer and {down} for each request, scoring on vehicles included."
    )


def _domain_groups(f: ReportFigures) -> list[tuple[str, list[Any]]]:
    names = {True: "Trained on", False: "Not trained on", None: ""}
    groups = [(names[side], [row for row in f.domains if row.seen is side])
              for side in (True, False, None)]  # fmt: skip
    return [(name, rows) for name, rows in groups if rows]


def _no_pictures(f: ReportFigures) -> str:
    return (
        "This run kept no predictions of evaluation frames: the server has none, pictures are off "
        "(evaluation.pictures = 0), scores use other norms than the model’s own, or an earlier "
        "version made the run. For pictures of the finished model: "
        f"fleetseg predict {f.command} IMAGES --out DIR --overlay"
    )


def _round_texts(f: ReportFigures) -> list[str]:
    texts, up = [], 0.0
    happened = {event.round: event.text for event in f.events}
    for row in f.rounds:
        up += row.mb_up
        told = [f"Round {row.round}: {row.answered} of {row.asked} answered"]
        told += [f"{count} {kind}" for kind, count in row.failed.items()]
        told += [f"loss {row.loss:.3f}"] if row.loss is not None else []
        if row.miou is not None:
            critical = words.score(row.critical_miou)
            told.append(f"mIoU {words.score(row.miou)}, critical {critical}")
        told.append(words.duration(row.seconds))
        told += [f"{size_text(up * 1e6)} up so far"] if up else []
        told += [happened[row.round]] if row.round in happened else []
        texts.append(" · ".join(told))
    return texts


def page_data(f: ReportFigures) -> str:
    """Return the script's data as JSON that cannot close its script element."""
    data = {
        "rounds": _round_texts(f),
        "palette": [list(colour) for colour in f.colours],
        "critical": [k for k, name in enumerate(f.class_names) if name in f.critical_names],
        "frames": [
            {
                "truth": frame.truth_ids,
                "rounds": [list(each) for each in frame.ids_by_round],
            }
            for frame in f.frames
        ],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
