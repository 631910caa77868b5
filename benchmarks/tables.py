"""Sweeps on CamVid for result tables: make or resume them, read them by set and by vehicle."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fleetseg
from fleetseg.data.sources import open_source
from fleetseg.evaluation.scores import Scores
from fleetseg.experiment_file import fields_to_toml, make_experiment
from fleetseg.runs.records import is_complete
from fleetseg.runs.report import RunReport, read_run

DRIVES, UNSEEN, FAMILIAR = ("0001TP", "0016E5"), "0006R0", "0016E5"
"""The roads that vehicles drive on, the unseen road, and the road of `val/`."""


def camvid(*drives: str, split: str = "train") -> dict[str, Any]:
    """CamVid, or some of its drives."""
    fields = {"kind": "camvid", "root": "${FLEETSEG_DATA}/camvid", "split": split}
    return {**fields, "sequences": list(drives)} if drives else fields


def india() -> tuple[dict[str, Any], dict[str, Any]]:
    """IDD-Lite: nine tenths of its drives to train on, and every tenth drive to score."""
    fields = {"kind": "idd_lite", "root": "${FLEETSEG_DATA}/idd_lite"}
    samples = open_source(make_experiment({"data": {"sources": [fields]}}).data.sources[0]).samples
    drives = sorted({sample.sequence for sample in samples})
    scored = drives[::10]
    return (
        {**fields, "sequences": [drive for drive in drives if drive not in scored]},
        {**fields, "sequences": scored},
    )


def common(*, held_out: bool, scored: bool) -> dict[str, Any]:
    """Nine vehicles on two roads at half size, and the sets that are scored.

    held_out: score the last fifth of each vehicle's stretch, vehicle by vehicle.
    scored: score `val/`, which is more of a road that vehicles drive on, and the unseen road.
    """
    data = {"label_space": "camvid11", "size": [180, 240], "sources": [camvid(*DRIVES)]}
    if scored:
        data["evaluation"] = [camvid(split="val"), camvid(UNSEEN)]
    partition: dict[str, Any] = {"kind": "natural", "by": "sequence", "clients": 9}
    if held_out:
        partition["holdout"] = 0.2
    return {
        "data": data,
        "partition": partition,
        "evaluation": {"every": 0, "by": "sequence", "on_clients": held_out},
        "engine": {"precision": "fp32"},  # at this size faster than bf16
    }


def make(
    folder: Path,
    base: Mapping[str, Any],
    runs: Iterable[Mapping[str, Any]],
    jobs: int,
    seeds: Sequence[int] = (0,),
) -> None:
    """Make a sweep's runs, or resume them; print those that failed."""
    file = folder.with_suffix(".toml")
    folder.parent.mkdir(parents=True, exist_ok=True)
    head = f"name = {json.dumps(folder.name)}\nseeds = {list(seeds)}\n\n"
    text = fields_to_toml({"base": dict(base)}) + "\n" + "".join(map(_as_run, runs))
    file.write_text(head + text, encoding="utf-8")
    done = fleetseg.sweep(file, out=folder, jobs=jobs, resume=folder.is_dir())
    for failed in done.failed:
        print(f"failed: {failed.planned.name}: {failed.why}")


Trials = Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
"""For each row its fixed settings, and the settings of each trial."""


def trial_runs(rows: Trials) -> list[dict[str, Any]]:
    """All trials of all rows, as runs "row.0", "row.1" and so on."""
    return [
        {"name": f"{name}.{number}", **shared, **trial}
        for name, (shared, trials) in rows.items()
        for number, trial in enumerate(trials)
    ]


def make_rows(
    out: Path, base: Mapping[str, Any], rows: Trials, jobs: int, seeds: Mapping[str, Sequence[int]]
) -> None:
    """Make all trials with seed 0, and the better one of some rows with further seeds."""
    make(out / "trials", base, trial_runs(rows), jobs)
    best = better(read_rows(out / "trials"))
    runs = {run["name"]: run for run in trial_runs(rows)}
    for some in sorted({tuple(each) for each in seeds.values()}):
        again = [best[name].name for name in seeds if seeds[name] == some and name in best]
        folder = out / f"seeds-{'-'.join(map(str, some))}"
        make(folder, base, [runs[name] for name in again], jobs, some)


def read_better(out: Path) -> dict[str, Row]:
    """Read the runs of `make_rows`: the better trial of each row, with all its seeds."""
    best = better(read_rows(out / "trials"))
    more = [read_rows(folder) for folder in sorted(out.glob("seeds-*")) if folder.is_dir()]
    return {
        name: Row(row.name, sum((m[row.name].reports for m in more if row.name in m), row.reports))
        for name, row in best.items()
    }


def read_seeds(out: Path, name: str) -> dict[str, Row]:
    """Read a sweep's finished rows, with further seeds from the folder NAME-seeds beside it."""
    more = read_rows(out / f"{name}-seeds")
    return {
        row_name: Row(
            row_name, (*row.reports, *(more[row_name].reports if row_name in more else ()))
        )
        for row_name, row in read_rows(out / name).items()
    }


def better(rows: Mapping[str, Row]) -> dict[str, Row]:
    """For each row the trial with the higher mIoU on held-out frames; the first if equal."""
    best: dict[str, Row] = {}
    for trial, row in rows.items():
        name = trial.rsplit(".", 1)[0]
        if name not in best or row.held_out[0].miou > best[name].held_out[0].miou:
            best[name] = row
    return best


def _as_run(fields: Mapping[str, Any]) -> str:
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in fields.items()]
    return "[[run]]\n" + "\n".join(lines) + "\n\n"


@dataclass(frozen=True)
class Row:
    """The runs of one row, one for each seed."""

    name: str
    reports: tuple[RunReport, ...]

    @property
    def held_out(self) -> list[Scores]:
        """Scores on all held-out frames together, one per seed."""
        return [together(scored.by_client.values()) for scored in self._scored]

    def on(self, drive: str) -> list[Scores]:
        """Scores on a drive's frames, one per seed."""
        return [scored.by_domain[drive] for scored in self._scored]

    @property
    def roads(self) -> list[str]:
        """Names of the domains that the server scores."""
        return sorted(self._scored[0].by_domain)

    @property
    def by_vehicle(self) -> dict[str, float]:
        """Each vehicle's mIoU on its held-out frames, mean over the seeds."""
        names = self._scored[0].by_client
        return {
            name: statistics.fmean(scored.by_client[name].miou for scored in self._scored)
            for name in names
        }

    @property
    def images(self) -> float:
        """Images trained on, mean over the seeds."""
        return statistics.fmean(sum(x.images_seen for x in r.rounds) for r in self.reports)

    @property
    def megabytes(self) -> float:
        """Megabytes both ways, mean over the seeds; NaN for a baseline, which sends nothing."""
        if self.reports[0].experiment.baseline.kind:
            return float("nan")
        return statistics.fmean(
            sum(x.bytes_up + x.bytes_down for x in r.rounds) / 1e6 for r in self.reports
        )

    @property
    def _scored(self) -> list[Any]:
        return [report.end.scored for report in self.reports if report.end]


def together(parts: Iterable[Scores]) -> Scores:
    """Scores over the frames of several scores together."""
    scores = list(parts)
    return Scores.of(np.sum([each.conf_CC for each in scores], axis=0), scores[0].space)


def read_rows(folder: Path) -> dict[str, Row]:
    """Read the finished runs of a sweep, by name."""
    found: dict[str, list[RunReport]] = {}
    for path in sorted(folder.glob("*_seed*")):
        if (path / "rounds.jsonl").is_file() and is_complete((report := read_run(path)).end):
            found.setdefault(path.name.rsplit("_seed", 1)[0], []).append(report)
    return {name: Row(name, tuple(reports)) for name, reports in found.items()}


def figure(scores: Sequence[Scores], of: Callable[[Scores], float]) -> str:
    """Format the mean over seeds, with the standard deviation where there are several."""
    values = [of(each) for each in scores]
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table whose first column is text."""
    print(f"| {' | '.join(head)} |\n|---{'|--:' * (len(head) - 1)}|")
    for cells in lines:
        print(f"| {' | '.join(cells)} |")
    print()


def class_table(rows: Mapping[str, Sequence[Scores]]) -> None:
    """Print the IoU of each class for each row, from its scores (one per seed)."""
    if not rows:
        return
    classes = next(iter(rows.values()))[0].space.classes
    numbers = range(len(classes))
    table(
        ("IoU", *classes),
        (
            (name, *(figure(scores, lambda s, i=i: s.iou_C[i]) for i in numbers))  # type: ignore[misc]
            for name, scores in rows.items()
        ),
    )
