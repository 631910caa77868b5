"""Every preset on CamVid at the same budget: the tables of docs/results.md.

Nine vehicles drive on two of CamVid's roads.

1. Tuning: two trials of each row, of its own parameter or its learning rate. The last fifth of each
   vehicle's stretch is held out and scored, vehicle by vehicle; nothing else is.
2. Scored: the better trial of each row, trained on all of it, scored on `val/` (more of a road that
   vehicles drive on) and on the drive 0006R0, which neither training nor tuning has seen.

Models of which a part stays with the vehicles have no score on the server's sets; the tuning
scores, of every vehicle's own held-out frames, are theirs.

    python benchmarks/method_tables.py --out runs/methods --jobs 2      # hours; goes on
    python benchmarks/method_tables.py --out runs/methods --tables      # what is there

Each stage is a sweep (`fleetseg sweep`), whose folder has a comparison of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables import FAMILIAR, UNSEEN, Row, class_table, common, figure, make, read_rows, table

PLAIN = {"training.momentum": 0.0}  # of methods that take no momentum of a client's own
# Of each row: what it is, and two trials. Rows that tune a parameter of their own train at FedAvg's
# better rate (0.05 and 0.1 were worse); clients without momentum need a larger one.
ROWS: dict[str, tuple[Mapping[str, Any], tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "fedavg": ({"method": "fedavg"}, ({"training.lr": 0.2}, {"training.lr": 0.4})),
    "fedavgm": (
        {"method": "fedavgm"},
        ({"federation.server_lr": 0.3}, {"federation.server_lr": 1.0}),
    ),
    **{
        name: ({"method": name}, ({"federation.server_lr": low}, {"federation.server_lr": high}))
        for name, low, high in (
            ("fedadam", 0.003, 0.01),
            ("fedyogi", 0.003, 0.01),
            ("fedadagrad", 0.01, 0.03),
        )
    },
    "fedexp": (
        {"method": "fedexp"},
        ({"federation.extrapolated.eps": 1e-3}, {"federation.extrapolated.eps": 0.1}),
    ),
    "fedprox": (
        {"method": "fedprox"},
        ({"training.prox.mu": 0.01}, {"training.prox.mu": 0.1}),
    ),
    "scaffold": ({"method": "scaffold", **PLAIN}, ({"training.lr": 0.3}, {"training.lr": 1.0})),
    "fednova": ({"method": "fednova"}, ({"training.lr": 0.2}, {"training.lr": 0.4})),
    "feddyn": ({"method": "feddyn"}, ({"training.dyn.alpha": 0.01}, {"training.dyn.alpha": 0.1})),
    "feddc": (
        {"method": "feddc", "training.lr": 1.0, **PLAIN},
        ({"training.drift.alpha": 0.01}, {"training.drift.alpha": 0.1}),
    ),
    "fedcm": ({"method": "fedcm", **PLAIN}, ({"training.lr": 0.3}, {"training.lr": 1.0})),
    "mimelite": ({"method": "mimelite", **PLAIN}, ({"training.lr": 0.1}, {"training.lr": 0.3})),
    "fedsam": ({"method": "fedsam"}, ({"training.sam.rho": 0.02}, {"training.sam.rho": 0.1})),
    "fedspeed": (
        {"method": "fedspeed"},
        ({"training.fedspeed.mu": 0.1}, {"training.fedspeed.mu": 1.0}),
    ),
    "moon": ({"method": "moon"}, ({"training.moon.mu": 0.1}, {"training.moon.mu": 1.0})),
    "fedseg": (
        {"method": "fedseg"},
        ({"training.pixel_contrast.weight": 0.1}, {"training.pixel_contrast.weight": 1.0}),
    ),
    "fixbn": (
        {"method": "fixbn"},
        ({"training.freeze_bn_after": 0.5}, {"training.freeze_bn_after": 0.75}),
    ),
    "fedgau": (
        {"method": "fedgau"},
        ({"federation.fedgau.epsilon": 0.01}, {"federation.fedgau.epsilon": 0.1}),
    ),
    "feddg-ga": (
        {"method": "feddg-ga"},
        ({"federation.gap.step": 0.05}, {"federation.gap.step": 0.2}),
    ),
    "qffedavg": ({"method": "qffedavg"}, ({"federation.qffl.q": 0.1}, {"federation.qffl.q": 1.0})),
    "fedema": (
        {"method": "fedema"},
        ({"training.entropy.weight": 0.01}, {"training.entropy.weight": 0.1}),
    ),
    "hyperflaw-queue": (
        {"method": "hyperflaw-queue"},
        ({"federation.queue.length": 2}, {"federation.queue.length": 5}),
    ),
    **{
        name: ({"method": name}, ({"training.lr": 0.2}, {"training.lr": 0.4}))
        for name in ("silobn", "fedbn", "fedper", "fedrep", "fedbabu")
    },
    "ditto": ({"method": "ditto"}, ({"personal.pull": 0.1}, {"personal.pull": 1.0})),
    "centralised": (
        {"baseline": "centralised"},
        ({"training.lr": 0.02}, {"training.lr": 0.05}),
    ),
    "centralised-twice": (
        {"baseline": "centralised", "baseline.images_share": 2.0},
        ({"training.lr": 0.02}, {"training.lr": 0.05}),
    ),
}
KEEPS_A_PART = ("fedbn", "fedper", "fedrep")
"""Rows without a whole model on the server."""


def base(kind: str, rounds: int) -> dict[str, Any]:
    """What the runs of a stage have in common: Fast-SCNN from scratch, plain SGD."""
    return {
        **common(held_out=kind == "tuning", scored=kind == "scored"),
        "model": {"name": "fast_scnn"},
        "training": {
            "optimiser": "sgd", "lr": 0.4, "momentum": 0.9, "batch_size": 4, "local_epochs": 1,
            "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
    }  # fmt: skip


def trials() -> list[dict[str, Any]]:
    """Both trials of each row."""
    return [
        {"name": f"{name}.{number}", **shared, **trial}
        for name, (shared, both) in ROWS.items()
        for number, trial in enumerate(both)
    ]


def chosen(out: Path) -> list[dict[str, Any]]:
    """Of each row with a whole model on the server, the trial that is better on held-out frames."""
    rows = read_rows(out / "tuning")
    return [
        {"name": name, **shared, **both[better(rows, name)]}
        for name, (shared, both) in ROWS.items()
        if name not in KEEPS_A_PART
    ]


def better(rows: Mapping[str, Row], name: str) -> int:
    """Which of a row's two trials has the higher mIoU on all that vehicles held out."""
    first, second = (rows[f"{name}.{number}"].held_out[0].miou for number in (0, 1))
    return int(second > first)


def print_tables(out: Path) -> None:
    """Print what is there."""
    tuned, scored = read_rows(out / "tuning"), read_rows(out / "scored")
    print("## Tuning: held-out frames of the vehicles\n")
    table(
        ("", "first trial", "second", "critical", "worst vehicle", "images", "MB"),
        (_tuning_line(tuned, name) for name in ROWS if {f"{name}.0", f"{name}.1"} <= set(tuned)),
    )
    print("## Scored\n")
    rows = sorted(scored.values(), key=lambda row: -row.on(UNSEEN)[0].miou)
    table(
        ("", "unseen road", "critical", "familiar road", "critical", "images", "MB"),
        (
            (
                row.name,
                *(
                    figure(row.on(drive), of)
                    for drive in (UNSEEN, FAMILIAR)
                    for of in (lambda s: s.miou, lambda s: s.critical_miou)
                ),
                f"{row.images:,.0f}",
                f"{row.megabytes:,.0f}",
            )
            for row in rows
        ),
    )
    for drive in (UNSEEN, FAMILIAR):
        class_table(rows, drive)


def _tuning_line(rows: Mapping[str, Row], name: str) -> tuple[str, ...]:
    both = [rows[f"{name}.{number}"] for number in (0, 1)]
    best = both[better(rows, name)]
    return (
        name,
        *(figure(row.held_out, lambda s: s.miou) for row in both),
        figure(best.held_out, lambda s: s.critical_miou),
        f"{min(best.by_vehicle.values()):.3f}",
        f"{best.images:,.0f}",
        f"{best.megabytes:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.tables:
        make(args.out / "tuning", base("tuning", args.rounds), trials(), args.jobs)
        make(args.out / "scored", base("scored", args.rounds), chosen(args.out), args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
