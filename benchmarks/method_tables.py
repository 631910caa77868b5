"""Every preset on CamVid at the same budget: the tables of docs/results.md.

Nine vehicles drive on two of CamVid's roads.

1. Two trials of each row, of the method's own parameter or of the learning rate. The last fifth of
   each vehicle's stretch is held out and scored, vehicle by vehicle; these scores decide which
   trial is better.
2. The better trial's model is scored on `val/` (more of a road that vehicles drive on) and on the
   drive 0006R0, which neither training nor the choice has seen.

Models that keep a part on the vehicles have no score on the server's sets; they are in the first
table only.

    python benchmarks/method_tables.py --out runs/methods --jobs 2      # hours; resumes
    python benchmarks/method_tables.py --out runs/methods --tables      # finished rows

The trials are a sweep (`fleetseg sweep`), whose folder has a comparison of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fleetseg
from fleetseg.data.spaces import open_space
from fleetseg.evaluation.scores import Scores
from fleetseg.experiment_file import make_experiment
from tables import (
    FAMILIAR,
    UNSEEN,
    Row,
    Trials,
    class_table,
    common,
    figure,
    make,
    read_rows,
    table,
    trial_runs,
)

PLAIN = {"training.momentum": 0.0}  # for methods whose clients must not have momentum of their own
# For each row its fixed settings and two trials. Rows that tune a parameter of their own train at
# FedAvg's better rate (0.05 and 0.1 were worse); clients without momentum need a larger one.
ROWS: Trials = {
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
        {"method": "fixbn", "training.lr": 0.1},  # at 0.4 it diverges
        ({"training.freeze_bn_after": 0.5}, {"training.freeze_bn_after": 0.75}),
    ),
    "fedfa": (
        {"method": "fedfa"},
        ({"training.fedfa.probability": 0.25}, {"training.fedfa.probability": 0.5}),
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
        for name in ("silobn", "fedbn", "fedper", "fedbabu")
    },
    # The head trains ten epochs a round; at 0.2 it diverges in the first round.
    "fedrep": ({"method": "fedrep"}, ({"training.lr": 0.02}, {"training.lr": 0.05})),
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


def base(rounds: int) -> dict[str, Any]:
    """Settings that all runs share: Fast-SCNN from scratch, plain SGD."""
    return {
        **common(held_out=True, scored=False),
        "model": {"name": "fast_scnn"},
        "training": {
            "optimiser": "sgd", "lr": 0.4, "momentum": 0.9, "batch_size": 4, "local_epochs": 1,
            "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
    }  # fmt: skip


def score(out: Path) -> None:
    """Score the better trial of each row that has a whole model on the server."""
    on = make_experiment({**common(held_out=False, scored=True), "name": "scored"})
    rows = read_rows(out / "tuning")
    for name in ROWS:
        file = out / "scored" / f"{name}.json"
        if name in KEEPS_A_PART or not _is_tried(rows, name) or file.is_file():
            continue
        run = rows[f"{name}.{better(rows, name)}"].reports[0]
        norms = "batch" if run.experiment.federation.sharing == "silobn" else "running"
        scored = fleetseg.evaluate(run.path, on, norms=norms, precision="fp32")
        file.parent.mkdir(parents=True, exist_ok=True)
        confs = {drive: conf_CC.tolist() for drive, conf_CC in scored.conf_by_domain.items()}
        file.write_text(json.dumps(confs), encoding="utf-8")


def read_scored(out: Path) -> dict[str, dict[str, Scores]]:
    """Read the scores that `score` wrote: row -> drive -> scores."""
    space = open_space(make_experiment(common(held_out=False, scored=True)).data)
    return {
        file.stem: {
            drive: Scores.of(np.array(conf_CC), space)
            for drive, conf_CC in json.loads(file.read_text(encoding="utf-8")).items()
        }
        for file in sorted((out / "scored").glob("*.json"))
    }


def better(rows: Mapping[str, Row], name: str) -> int:
    """Number of the row's trial with the higher mIoU on all held-out frames."""
    first, second = (rows[f"{name}.{number}"].held_out[0].miou for number in (0, 1))
    return int(second > first)


def _is_tried(rows: Mapping[str, Row], name: str) -> bool:
    return {f"{name}.0", f"{name}.1"} <= set(rows)


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    runs, scored = read_rows(out / "tuning"), read_scored(out)
    print("## Held-out frames of the vehicles\n")
    table(
        ("", "first trial", "second trial", "critical", "worst vehicle", "images", "MB"),
        (_tuning_line(runs, name) for name in ROWS if _is_tried(runs, name)),
    )
    print("## Scores of the better trials\n")
    names = sorted(scored, key=lambda name: -scored[name][UNSEEN].miou)
    table(
        ("", "unseen road", "critical", "familiar road", "critical"),
        ((name, *(f"{figure:.3f}" for figure in _figures(scored[name]))) for name in names),
    )
    for drive in (UNSEEN, FAMILIAR):
        class_table({name: [scored[name][drive]] for name in names})


def _figures(by_drive: Mapping[str, Scores]) -> Iterator[float]:
    for drive in (UNSEEN, FAMILIAR):
        yield by_drive[drive].miou
        yield by_drive[drive].critical_miou


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
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--rows", default=",".join(ROWS), help="only these, comma-separated")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        rows = {name: ROWS[name] for name in args.rows.split(",")}
        make(args.out / "tuning", base(args.rounds), trial_runs(rows), args.jobs)
        score(args.out)
    print_tables(args.out)


if __name__ == "__main__":
    main()
