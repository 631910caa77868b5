"""The best methods with a pretrained network, three seeds: tables of docs/results.md.

The fleet, the roads and the selection are those of benchmarks/method_tables.py: each row has two
trials with seed 0; the trial that is better on the frames that vehicles hold out is repeated with
two further seeds. Scored on `val/`, more of a road that was trained on, and on a drive that no
vehicle has seen.

    python benchmarks/pretrained_tables.py --out runs/pretrained --jobs 2      # hours; resumes
    python benchmarks/pretrained_tables.py --out runs/pretrained --tables      # finished rows

`--full fedavg,moon` repeats these rows' better trials at full size, 360 x 480, with seed 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import (
    FAMILIAR,
    UNSEEN,
    Row,
    Trials,
    class_table,
    common,
    figure,
    make,
    make_rows,
    read_better,
    read_rows,
    table,
    trial_runs,
)

NETWORK = "zoo:fpn/timm-tf_efficientnet_lite0"
SGD = {"training.optimiser": "sgd", "training.momentum": 0.0, "training.weight_decay": 0.0}
POOLED_GAU = {"method": "fedgau", "federation.statistics": "pooled"}
# The five rows of benchmarks/method_tables.py that were best on held-out frames and have a whole
# model on the server, compositions, and the rows that all are compared with.
ROWS: Trials = {
    "fedavg": ({"method": "fedavg"}, ({"training.lr": 3e-3}, {"training.lr": 6e-3})),
    "centralised": ({"baseline": "centralised"}, ({"training.lr": 1e-3}, {"training.lr": 3e-3})),
    "fedgau": (
        {"method": "fedgau"},
        ({"federation.fedgau.epsilon": 0.01}, {"federation.fedgau.epsilon": 0.1}),
    ),
    "feddg-ga": (
        {"method": "feddg-ga"},
        ({"federation.gap.step": 0.05}, {"federation.gap.step": 0.2}),
    ),
    "fedprox": ({"method": "fedprox"}, ({"training.prox.mu": 0.01}, {"training.prox.mu": 0.1})),
    "moon": ({"method": "moon"}, ({"training.moon.mu": 0.1}, {"training.moon.mu": 1.0})),
    "feddc": ({"method": "feddc", **SGD}, ({"training.lr": 0.1}, {"training.lr": 0.3})),
    "fedgau-pooled-weather": (
        POOLED_GAU,
        ({"training.weather.probability": 0.3}, {"training.weather.probability": 0.6}),
    ),
    "fedgau-pooled-styles": (
        {**POOLED_GAU, "training.style.kind": "lab", "training.style.per": "image"},
        ({"training.style.probability": 0.25}, {"training.style.probability": 0.5}),
    ),
    "centralised-twice": (
        {"baseline": "centralised", "baseline.images_share": 2.0},
        ({"training.lr": 1e-3}, {"training.lr": 3e-3}),
    ),
}


def base(rounds: int) -> dict[str, Any]:
    """Settings that all runs share."""
    return {
        **common(held_out=True, scored=True),
        "model": {"name": NETWORK, "pretrained": "imagenet"},
        "training": {
            "optimiser": "adamw", "lr": 6e-3, "weight_decay": 0.01, "batch_size": 4,
            "local_epochs": 1, "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
    }  # fmt: skip


def make_full(out: Path, names: Sequence[str], rounds: int, jobs: int) -> None:
    """Make the better trials of some rows at full size."""
    small, best = base(rounds), read_better(out)
    full = {
        **small,
        "data": {**small["data"], "size": [360, 480]},
        "training": {**small["training"], "crop": [192, 256]},
    }
    chosen = {best[name].name for name in names}
    make(out / "full", full, [run for run in trial_runs(ROWS) if run["name"] in chosen], jobs)


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    best = read_better(out)
    full = {row.name.rsplit(".", 1)[0]: row for row in read_rows(out / "full").values()}
    for rows in filter(None, (best, full)):
        _print_rows(dict(sorted(rows.items(), key=lambda item: -item[1].held_out[0].miou)))


def _print_rows(rows: Mapping[str, Row]) -> None:
    table(
        ("", "trial", "seeds", "held out", "worst vehicle", "unseen road", "critical",
         "familiar road", "critical", "images", "MB"),
        (_line(name, row) for name, row in rows.items()),
    )  # fmt: skip
    for drive in (UNSEEN, FAMILIAR):
        class_table({name: row.on(drive) for name, row in rows.items()})


def _line(name: str, row: Row) -> tuple[str, ...]:
    return (
        name,
        row.name.rsplit(".", 1)[1],
        str(len(row.reports)),
        figure(row.held_out, lambda s: s.miou),
        f"{min(row.by_vehicle.values()):.3f}",
        figure(row.on(UNSEEN), lambda s: s.miou),
        figure(row.on(UNSEEN), lambda s: s.critical_miou),
        figure(row.on(FAMILIAR), lambda s: s.miou),
        figure(row.on(FAMILIAR), lambda s: s.critical_miou),
        f"{row.images:,.0f}",
        f"{row.megabytes:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    parser.add_argument("--full", default="", help="rows to repeat at full size, comma-separated")
    args = parser.parse_args()
    if args.full:
        make_full(args.out, args.full.split(","), args.rounds, args.jobs)
    elif not args.tables:
        make_rows(args.out, base(args.rounds), ROWS, args.jobs, dict.fromkeys(ROWS, (1, 2)))
    print_tables(args.out)


if __name__ == "__main__":
    main()
