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
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fleetseg
from fleetseg.errors import FleetSegError
from fleetseg.experiment_file import fields_to_toml
from fleetseg.runs.comparison import ComparisonRow

DRIVES, UNSEEN = ("0001TP", "0016E5"), "0006R0"
STAGES = ("tuning", "scored")
PLAIN = {"training.momentum": 0.0}  # of methods that take no momentum of a client's own
# Of each row: what it is, and two trials. Clients without momentum need a larger rate.
ROWS: dict[str, tuple[Mapping[str, Any], tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "fedavg": ({"method": "fedavg"}, ({"training.lr": 0.05}, {"training.lr": 0.1})),
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
    "scaffold": ({"method": "scaffold", **PLAIN}, ({"training.lr": 0.1}, {"training.lr": 0.3})),
    "fednova": ({"method": "fednova"}, ({"training.lr": 0.05}, {"training.lr": 0.1})),
    "feddyn": ({"method": "feddyn"}, ({"training.dyn.alpha": 0.01}, {"training.dyn.alpha": 0.1})),
    "feddc": (
        {"method": "feddc", "training.lr": 0.2, **PLAIN},
        ({"training.drift.alpha": 0.01}, {"training.drift.alpha": 0.1}),
    ),
    "fedcm": ({"method": "fedcm", **PLAIN}, ({"training.lr": 0.3}, {"training.lr": 1.0})),
    "mimelite": ({"method": "mimelite", **PLAIN}, ({"training.lr": 0.05}, {"training.lr": 0.1})),
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
        name: ({"method": name}, ({"training.lr": 0.05}, {"training.lr": 0.1}))
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


def source(*drives: str, split: str = "train") -> dict[str, Any]:
    fields = {"kind": "camvid", "root": "${FLEETSEG_DATA}/camvid", "split": split}
    return {**fields, "sequences": list(drives)} if drives else fields


def stage(kind: str, rounds: int) -> dict[str, Any]:
    """What the runs of a stage have in common: Fast-SCNN from scratch, half size, plain SGD."""
    data = {"label_space": "camvid11", "size": [180, 240], "sources": [source(*DRIVES)]}
    partition = {"kind": "natural", "by": "sequence", "clients": 9}
    evaluation: dict[str, Any] = {"every": 0, "by": "sequence"}
    if kind == "tuning":
        partition["holdout"] = 0.2
        evaluation["on_clients"] = True
    else:
        data["evaluation"] = [source(split="val"), source(UNSEEN)]
    return {
        "data": data,
        "partition": partition,
        "model": {"name": "fast_scnn"},
        "training": {
            "optimiser": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 4, "local_epochs": 1,
            "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
        "evaluation": evaluation,
        "engine": {"precision": "fp32"},  # at this size faster than bf16
    }  # fmt: skip


def runs_of(kind: str, out: Path) -> list[dict[str, Any]]:
    """The settings of a stage: both trials of each row, or the better one."""
    if kind == "tuning":
        return [
            {"name": f"{name}.{number}", **common, **trial}
            for name, (common, trials) in ROWS.items()
            for number, trial in enumerate(trials)
        ]
    chosen = better(out)
    return [
        {"name": name, **common, **trials[chosen[name]]}
        for name, (common, trials) in ROWS.items()
        if name not in KEEPS_A_PART
    ]


def better(out: Path) -> dict[str, int]:
    """Which trial of each row has the higher mIoU on what the vehicles held out."""
    score = {row.name: row.miou.mean if row.miou else 0.0 for row in compared(out / "tuning")}
    return {name: int(score[f"{name}.1"] > score[f"{name}.0"]) for name in ROWS}


def compared(folder: Path) -> Sequence[ComparisonRow]:
    return fleetseg.compare(folder, despite=("norms", "seen", "unseen")).rows


def make(kind: str, out: Path, rounds: int, jobs: int) -> None:
    """Make a stage's runs, or go on with them."""
    file = out / f"{kind}.toml"
    out.mkdir(parents=True, exist_ok=True)
    head = f"name = {json.dumps(kind)}\nseeds = [0]\n\n"
    runs = "".join(_as_run(fields) for fields in runs_of(kind, out))
    file.write_text(head + fields_to_toml({"base": stage(kind, rounds)}) + "\n" + runs)
    done = fleetseg.sweep(file, out=out / kind, jobs=jobs, resume=(out / kind).is_dir())
    for failed in done.failed:
        print(f"failed: {failed}")


def _as_run(fields: Mapping[str, Any]) -> str:
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in fields.items()]
    return "[[run]]\n" + "\n".join(lines) + "\n\n"


def print_tables(out: Path) -> None:
    """Print what is there."""
    for kind in STAGES:
        try:
            rows = compared(out / kind)
        except FleetSegError as error:
            print(f"{kind}: {error}")
            continue
        print(f"\n{kind}\n\n| | mIoU | critical | worst vehicle | images | MB |")
        print("|---|--:|--:|--:|--:|--:|")
        for row in sorted(rows, key=lambda row: -(row.miou.mean if row.miou else 0.0)):
            print(_line(row))


def _line(row: ComparisonRow) -> str:
    miou, critical = (f"{s.mean:.3f}" if s else "–" for s in (row.miou, row.critical_miou))
    worst = f"{row.worst_client[1].mean:.3f}" if row.worst_client else "–"
    sent = row.mb_up.mean + row.mb_down.mean if row.mb_up and row.mb_down else None
    megabytes = "–" if sent is None else f"{sent:,.0f}"
    return f"| {row.name} | {miou} | {critical} | {worst} | {row.images.mean:,.0f} | {megabytes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.tables:
        for kind in STAGES:
            make(kind, args.out, args.rounds, args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
