"""Vehicles without labels: tables of docs/results.md.

The server trains on labelled sources of its own, synthetic streets or India (IDD-Lite); CamVid's
vehicles, on the drives 0001TP and 0016E5, have images without labels. Scored on `val/`, more of
0016E5, and on the drive 0006R0. Seven classes from India, eleven from synthetic streets. "source
only" is the server's model before the fleet, "oracle" the same fleet with its labels, at as many
images. Nothing is tuned: options stand at their presets' values.

    python benchmarks/unlabelled_tables.py --out runs/unlabelled --jobs 2           # hours; resumes
    python benchmarks/unlabelled_tables.py --out runs/unlabelled --seeded fedavg-selftraining
    python benchmarks/unlabelled_tables.py --out runs/unlabelled --tables
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetseg.evaluation.scores import Scores
from fleetseg.runs.report import read_run
from tables import DRIVES, FAMILIAR, UNSEEN, Row, camvid, figure, make, read_seeds, table

NETWORK = "zoo:fpn/timm-tf_efficientnet_lite0"
SOURCES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "india": (
        "idd7",
        {"kind": "idd_lite", "root": "${FLEETSEG_DATA}/idd_lite", "split": "train", "limit": 700},
    ),
    "painted": ("camvid11", {"kind": "synthetic", "frames_per_drive": 28}),
}
"""For each source its label space and the server's labelled data: all cities and weathers."""
ROWS: Mapping[str, Mapping[str, Any]] = {
    "oracle": {},
    "fedavg-selftraining": {"method": "fedavg-selftraining"},
    "weak-to-strong": {"method": "weak-to-strong"},
    "fda-pretrain": {"method": "fda-pretrain"},
    "ladd-cls": {"method": "ladd-cls"},
    "ladd-all": {"method": "ladd-all"},
    "fl-uda": {"method": "fl-uda"},
    "one-place": {"method": "fedavg-selftraining", "baseline": "centralised"},
}
STAGES = {"source only": "fedavg-selftraining", "source in the fleet's styles": "fda-pretrain"}
"""Rows of the server's model before the fleet -> the row whose first stage it is. Other rows with
the same source have the same first stage, bit for bit."""


def base(source: str, rounds: int) -> dict[str, Any]:
    """Settings that the runs from a source share."""
    space, labelled = SOURCES[source]
    return {
        "data": {
            "label_space": space, "size": [180, 240], "sources": [camvid(*DRIVES)],
            "evaluation": [camvid(split="val"), camvid(UNSEEN)],
        },
        "partition": {"kind": "natural", "by": "sequence", "clients": 9},
        "pretrain": {"sources": [labelled], "rounds": 4, "epochs": 1, "lr": 3e-3},
        "model": {"name": NETWORK, "pretrained": "imagenet"},
        "training": {
            "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.01, "batch_size": 4,
            "local_epochs": 1, "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
        "evaluation": {"every": 0, "by": "sequence"},
        "engine": {"precision": "fp32"},
    }  # fmt: skip


def rows_of(out: Path, source: str) -> dict[str, Row]:
    """Finished rows of a source, with all their seeds."""
    rows = read_seeds(out, source)
    stages = {
        name: Row(name, tuple(read_run(report.path / "pretrain") for report in rows[of].reports))
        for name, of in STAGES.items()
        if of in rows
    }
    return {**stages, **rows}


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    for source in SOURCES:
        rows = rows_of(out, source)
        if not rows:
            continue
        print(f"## From {source} to CamVid\n")
        head = (
            "",
            "familiar road",
            "critical",
            "unseen road",
            "critical",
            "gap recovered",
            "seeds",
        )
        table(head, (_line(row, rows) for row in rows.values()))


def _line(row: Row, rows: Mapping[str, Row]) -> tuple[str, ...]:
    def cell(drive: str, critical: bool) -> str:
        return figure(row.on(drive), lambda s: s.critical_miou if critical else s.miou)

    roads = [cell(drive, critical) for drive in (FAMILIAR, UNSEEN) for critical in (False, True)]
    return row.name, *roads, _recovered(row, rows), str(len(row.reports))


def _recovered(row: Row, rows: Mapping[str, Row]) -> str:
    """Share of the gap from source only to the oracle that a row closes, over both roads."""
    if not {"source only", "oracle"} <= set(rows):
        return "–"
    low, got, high = (_mean(each) for each in (rows["source only"], row, rows["oracle"]))
    return f"{(got - low) / (high - low):.0%}"


def _mean(row: Row) -> float:
    """MIoU with seed 0, which all rows have, as the mean of both roads."""
    scored: Sequence[Scores] = [row.on(drive)[0] for drive in (FAMILIAR, UNSEEN)]
    return statistics.fmean(scores.miou for scores in scored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sources", default=",".join(SOURCES), help="only these, comma-separated")
    parser.add_argument("--rows", default=",".join(ROWS), help="only these, comma-separated")
    parser.add_argument("--seeded", default="", help="rows with two more seeds, comma-separated")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        runs = [{"name": name, **ROWS[name]} for name in args.rows.split(",")]
        for source in args.sources.split(","):
            make(args.out / source, base(source, args.rounds), runs, args.jobs)
            more = [run for run in runs if run["name"] in args.seeded.split(",")]
            if more:
                folder = args.out / f"{source}-seeds"
                make(folder, base(source, args.rounds), more, args.jobs, (1, 2))
    print_tables(args.out)


if __name__ == "__main__":
    main()
