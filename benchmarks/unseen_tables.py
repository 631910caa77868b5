"""Roads in a light, a country or weather that no vehicle has seen: tables of docs/results.md.

Four folds, each of which leaves one domain out of training: CamVid's dusk, CamVid's days and India
(IDD-Lite), all in seven classes; and synthetic streets at night and in fog, in eleven. "Seen" are
the frames that the vehicles hold out, "unseen" is the domain that was left out. Nothing is tuned:
options stand at their defaults. Test-time variants score the finished models again, and look at the
unseen domain's images without labels.

    python benchmarks/unseen_tables.py --out runs/unseen --jobs 2                   # hours; resumes
    python benchmarks/unseen_tables.py --out runs/unseen --seeded fedavg,weather --folds dusk
    python benchmarks/unseen_tables.py --out runs/unseen --tables                   # finished rows
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fleetseg
from fleetseg.evaluation.scores import Scores
from tables import Row, camvid, figure, make, read_seeds, table, together

NETWORK = "zoo:fpn/timm-tf_efficientnet_lite0"
DAYS = ("0006R0", "0016E5")
LAB = {"training.style.kind": "lab", "training.style.per": "image"}
POOLED = {"federation.statistics": "pooled"}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "lab": LAB,
    "fda": {"training.style.kind": "fda"},
    "mixstyle": {"method": "mixstyle"},
    "fedfa": {"method": "fedfa"},
    "weather": {"training.weather.probability": 0.5},
    "silobn": {"method": "silobn"},
    "pooled": POOLED,
    "pooled-lab-weather": {**POOLED, **LAB, "training.weather.probability": 0.5},
}
TEST_TIME = ("batch", "domain", "adapted", "tent", "cotta-like")
"""Values of `evaluation.norms` for the rows below, beside the model's own statistics."""
ADAPTED = ("fedavg", "pooled", "pooled-lab-weather")


def india(limit: int) -> dict[str, Any]:
    root = "${FLEETSEG_DATA}/idd_lite"
    return {"kind": "idd_lite", "root": root, "split": "train", "limit": limit}


def painted(*conditions: str, frames: int) -> dict[str, Any]:
    return {"kind": "synthetic", "conditions": list(conditions), "frames_per_drive": frames}


FOLDS: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]] = {
    "dusk": ((camvid(*DAYS), india(300)), camvid("0001TP")),
    "day": ((camvid("0001TP"), india(300)), {**camvid(*DAYS), "limit": 101}),
    "india": ((camvid(),), india(200)),
    "painted": (
        (painted("day", "rain", "dusk", frames=20),),
        painted("night", "fog", frames=10),
    ),
}
"""For each fold the training sources and the domain that is left out."""


def base(fold: str, rounds: int) -> dict[str, Any]:
    """Settings that the runs of a fold share."""
    seen, unseen = FOLDS[fold]
    space = "camvid11" if fold == "painted" else "idd7"
    size = [180, 240] if fold != "painted" else [144, 192]
    return {
        "data": {
            "label_space": space, "size": size, "sources": list(seen), "evaluation": [unseen],
        },
        "partition": {"kind": "natural", "by": "sequence", "clients": 9, "holdout": 0.1},
        "model": {"name": NETWORK, "pretrained": "imagenet"},
        "training": {
            "optimiser": "adamw", "lr": 3e-3, "weight_decay": 0.01, "batch_size": 4,
            "local_epochs": 1, "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
        "evaluation": {"every": 0, "on_clients": True},
        "engine": {"precision": "fp32"},
    }  # fmt: skip


def make_fold(out: Path, fold: str, rounds: int, jobs: int, seeded: Sequence[str]) -> None:
    """Make a fold's runs, and score some of their models with the statistics of test images."""
    runs = [{"name": name, **fields} for name, fields in ROWS.items()]
    make(out / fold, base(fold, rounds), runs, jobs)
    if seeded:
        more = [run for run in runs if run["name"] in seeded]
        make(out / f"{fold}-seeds", base(fold, rounds), more, jobs, (1, 2))
    for name, row in read_seeds(out, fold).items():
        if name in ADAPTED:
            adapt(out / f"{fold}-adapted", name, row)


def adapt(out: Path, name: str, row: Row) -> None:
    """Score a row's models on the unseen domain with each kind of statistics."""
    for report in row.reports:
        for norms in TEST_TIME:
            file = out / f"{name}.{norms}.{report.experiment.seed}.json"
            if file.is_file():
                continue
            scored = fleetseg.evaluate(report.path, norms=norms, precision="fp32")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(scored.scores.conf_CC.tolist()), encoding="utf-8")


def unseen(row: Row) -> list[Scores]:
    """Scores on the whole unseen domain, one per seed."""
    by_road = [row.on(road) for road in row.roads]
    return [together(parts) for parts in zip(*by_road, strict=True)]


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    for fold in FOLDS:
        rows = read_seeds(out, fold)
        if not rows:
            continue
        print(f"## {fold} unseen\n")
        head = ("", "seen", "critical", "unseen", "critical", "seeds", "images")
        lines = [_line(name, row) for name, row in rows.items()]
        table(head, [*lines, *_adapted_lines(out / f"{fold}-adapted", rows)])


def _line(name: str, row: Row) -> tuple[str, ...]:
    return (
        name,
        figure(row.held_out, lambda s: s.miou),
        figure(row.held_out, lambda s: s.critical_miou),
        figure(unseen(row), lambda s: s.miou),
        figure(unseen(row), lambda s: s.critical_miou),
        str(len(row.reports)),
        f"{row.images:,.0f}",
    )


def _adapted_lines(folder: Path, rows: Mapping[str, Row]) -> Iterator[tuple[str, ...]]:
    for name in ADAPTED:
        for norms in TEST_TIME:
            files = sorted(folder.glob(f"{name}.{norms}.*.json"))
            if files and name in rows:
                space = rows[name].held_out[0].space
                scores = [Scores.of(np.array(json.loads(f.read_text())), space) for f in files]
                miou, critical = (
                    figure(scores, lambda s: s.miou),
                    figure(scores, lambda s: s.critical_miou),
                )
                yield f"{name}, {norms}", "", "", miou, critical, str(len(scores)), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--folds", default=",".join(FOLDS), help="only these, comma-separated")
    parser.add_argument("--seeded", default="", help="rows with two more seeds, comma-separated")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        seeded = [name for name in args.seeded.split(",") if name]
        for fold in args.folds.split(","):
            make_fold(args.out, fold, args.rounds, args.jobs, seeded)
    print_tables(args.out)


if __name__ == "__main__":
    main()
