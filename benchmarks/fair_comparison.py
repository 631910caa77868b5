"""Federated beside centralised on CamVid, both tuned alike: the tables of docs/results.md.

1. Tuning: the same number of trials for both sides, on the training drives alone (the last fifth of
   each vehicle's stretch of a drive is held out and scored; no scored set is opened).
2. Familiar road: scored on `val/`, three seeds each, at equal images seen; and the centralised run
   at its own best budget.
3. Unseen drive: two drives are trained on, the third is scored, three folds. Settings are chosen by
   the tuning scores of the two training drives.

    python benchmarks/fair_comparison.py --out runs/fair --jobs 2    # hours; resumes
    python benchmarks/fair_comparison.py --out runs/fair --tables    # finished runs

Every run is a run folder of `fleetseg run`, one thread each; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DRIVES = ("0001TP", "0006R0", "0016E5")
SEEDS = (0, 1, 2)
# The same number of trials for each side, at equal images, the examples' settings among them.
TRIALS: dict[str, tuple[tuple[str, ...], ...]] = {
    "federated": (
        ("training.lr=3e-3",),
        ("training.lr=6e-3",),
        ("training.lr=6e-3", "training.freeze_bn_after=1.0"),
    ),
    "centralised": (
        ("training.lr=3e-3",),
        ("training.lr=1e-3",),
        ("training.lr=6e-3",),
    ),
}
# Further centralised trials, which look for the best number of images for that side.
BUDGETS = (("training.lr=3e-3", "baseline.images_share=2.0"),)
TUNING = ("data.evaluation=[]", "partition.holdout=0.2", "evaluation.by=sequence")


@dataclass(frozen=True)
class Job:
    """One run: the name of its folder, its side, and its settings."""

    name: str
    side: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """The folder of the runs, and the settings that all of them share."""

    out: Path
    common: tuple[str, ...]

    def scores(self, name: str) -> dict[str, Any] | None:
        """Return the final scores of a finished run, with its costs; None if it is not finished."""
        try:
            lines = (self.out / name / "rounds.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return None
        records = [json.loads(line) for line in lines]
        if not records or records[-1].get("reason") != "rounds":
            return None
        rounds = [r for r in records if "event" not in r]
        cost = {key: sum(r[key] for r in rounds) for key in ("images_seen", "steps")}
        return {**records[-1]["scores"], **cost}

    def run(self, job: Job) -> None:
        """Make a run, or resume it."""
        if self.scores(job.name) is not None:
            return
        out = self.out / job.name
        command = [sys.executable, "-m", "fleetseg.cli", "run", str(EXAMPLES / "camvid.toml")]
        for setting in (*self.common, *job.settings):
            command += ["--set", setting]
        if job.side == "centralised":
            command += ["--baseline", "centralised"]
        command += ["--out", str(out), "--quiet"] + ["--resume"] * (out / "rounds.jsonl").exists()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment)
        print(f"done: {job.name}", flush=True)


def tuning() -> list[Job]:
    """Trials of both sides, alternating, then those of the centralised run's budget."""
    trials: dict[str, list[Job]] = {
        side: [
            Job(f"tune-{side}-{number}", side, (*TUNING, *settings))
            for number, settings in enumerate(_trials(side))
        ]
        for side in TRIALS
    }
    federated, centralised = trials["federated"], trials["centralised"]
    pairs = zip(federated, centralised[: len(federated)], strict=True)  # the same number of each
    return [*(job for pair in pairs for job in pair), *centralised[len(federated) :]]


def _trials(side: str) -> tuple[tuple[str, ...], ...]:
    return TRIALS[side] + (BUDGETS if side == "centralised" else ())


def best(protocol: Protocol, side: str, drives: Iterable[str], equal: bool) -> tuple[str, ...]:
    """Settings of the trial with the highest mean mIoU over the held-out ends of some drives.

    With `equal`, only trials that see as many images as the federation count.
    """

    def score(number: int) -> float:
        scores = protocol.scores(f"tune-{side}-{number}")
        assert scores is not None, "tuning comes first"
        return statistics.mean(scores["by_domain"][drive]["miou"] for drive in drives)

    tried = TRIALS[side] if equal else _trials(side)
    return tried[max(range(len(tried)), key=score)]


def familiar(protocol: Protocol) -> list[Job]:
    """Runs scored on `val/` at equal images, and the centralised best budget with one seed."""
    jobs = []
    for seed in SEEDS:
        for side in TRIALS:
            settings = best(protocol, side, DRIVES, equal=True)
            jobs.append(Job(f"val-{side}-{seed}", side, (*settings, f"seed={seed}")))
    own = best(protocol, "centralised", DRIVES, equal=False)
    return [*jobs, Job("val-own-budget-0", "centralised", (*own, "seed=0"))]


def unseen(protocol: Protocol) -> list[Job]:
    """Runs in which two drives are trained on and the third is scored."""
    jobs = []
    for drive in DRIVES:
        known = [name for name in DRIVES if name != drive]
        sets = [_source(drive)] + [_source("0016E5", "val")] * (drive == "0016E5")
        data = (f"data.sources=[{_source(*known)}]", f"data.evaluation=[{','.join(sets)}]")
        for side in TRIALS:
            settings = best(protocol, side, known, equal=True)
            more = ("partition.clients=6", "evaluation.by=sequence")
            jobs.append(Job(f"unseen-{drive}-{side}", side, (*settings, *data, *more)))
    return jobs


def _source(*drives: str) -> str:
    split = "val" if drives[-1] == "val" else "train"
    names = ",".join(f'"{drive}"' for drive in drives if drive != "val")
    root = "${FLEETSEG_DATA}/camvid"
    return f'{{kind="camvid",root="{root}",split="{split}",sequences=[{names}]}}'


def print_tables(protocol: Protocol) -> None:
    """Print the finished runs, as the tables of docs/results.md."""
    print("\n| trial | settings | mIoU | critical | " + " | ".join(DRIVES) + " |")
    print("|---|---|" + "--:|" * 5)
    for job in tuning():
        if scores := protocol.scores(job.name):
            told = ", ".join(s for s in job.settings if s not in TUNING)
            drives = " | ".join(f"{scores['by_domain'][d]['miou']:.3f}" for d in DRIVES)
            print(
                f"| {job.side} | {told} | {scores['miou']:.3f} | {scores['critical_miou']:.3f} "
                f"| {drives} |"
            )
    print("\n| scored on `val/` | mIoU | critical | images seen | seeds |\n|---|--:|--:|--:|--:|")
    for title, names in {
        **{side: [f"val-{side}-{seed}" for seed in SEEDS] for side in TRIALS},
        "centralised, its own best budget": ["val-own-budget-0"],
    }.items():
        _print_row(title, [s for name in names if (s := protocol.scores(name))])
    print("\n| unseen drive | side | mIoU | critical | images seen |\n|---|---|--:|--:|--:|")
    for drive in DRIVES:
        for side in TRIALS:
            if scores := protocol.scores(f"unseen-{drive}-{side}"):
                print(
                    f"| {drive} | {side} | {scores['miou']:.3f} | {scores['critical_miou']:.3f} "
                    f"| {scores['images_seen']:,} |"
                )


def _print_row(title: str, runs: Sequence[Mapping[str, Any]]) -> None:
    if runs:
        miou, critical = (_spread([run[key] for run in runs]) for key in ("miou", "critical_miou"))
        print(f"| {title} | {miou} | {critical} | {runs[0]['images_seen']:,} | {len(runs)} |")
        for name in runs[0]["iou"]:
            print(f"<!-- {title}: {name} {_spread([run['iou'][name] for run in runs])} -->")


def _spread(figures: Sequence[float]) -> str:
    if len(figures) == 1:
        return f"{figures[0]:.3f}"
    return f"{statistics.mean(figures):.3f} ± {statistics.stdev(figures):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--size", default="180,240", help="height,width (default: half size)")
    parser.add_argument("--crop", default="96,128")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    common = (
        f"data.size=[{args.size}]",
        f"training.crop=[{args.crop}]",
        f"federation.rounds={args.rounds}",
        "evaluation.every=0",
        "evaluation.on_clients=false",
        "engine.kind=inprocess",
    )
    protocol = Protocol(args.out, common)
    if not args.tables:
        with ThreadPoolExecutor(args.jobs) as pool:
            for stage in (lambda _: tuning(), familiar, unseen):
                list(pool.map(protocol.run, stage(protocol)))
    print_tables(protocol)


if __name__ == "__main__":
    main()
