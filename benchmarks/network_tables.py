"""Networks on CamVid at equal images: the table of docs/models.md.

Each network is trained centrally, with two learning rates, on as many images as nine vehicles would
see in `--rounds` rounds; the better rate is the one with the higher mIoU on the frames that the
vehicles hold out. Scored on `val/`, more of a road that was trained on, and on a drive that no
network has seen. benchmarks/networks.py prints what networks cost.

    python benchmarks/network_tables.py --out runs/networks --jobs 2      # an hour; resumes
    python benchmarks/network_tables.py --out runs/networks --tables      # finished rows
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fleetseg.evaluation.scores import Scores
from networks import NETWORKS
from tables import FAMILIAR, UNSEEN, better, class_table, common, figure, make, read_rows, table

PRETRAINED_LR, SCRATCH_LR = (1e-3, 3e-3), (3e-3, 1e-2)
SMALL = ("pole", "sign")  # the classes that a coarse output loses first


def base(rounds: int) -> dict[str, Any]:
    return {
        **common(held_out=True, scored=True),
        "training": {
            "optimiser": "adamw", "weight_decay": 0.01, "batch_size": 4, "local_epochs": 1,
            "class_weights": "fleet", "crop": [96, 128],
        },
        "federation": {"rounds": rounds},
    }  # fmt: skip


def trials() -> list[dict[str, Any]]:
    """Both trials of each network."""
    runs = []
    for name in NETWORKS:
        weights = {"model.pretrained": "imagenet"} if name.startswith("zoo:") else {}
        for number, lr in enumerate(PRETRAINED_LR if weights else SCRATCH_LR):
            named = {
                "name": f"{short(name)}.{number}",
                "baseline": "centralised",
                "model.name": name,
            }
            runs.append({**named, **weights, "training.lr": lr})
    return runs


def short(name: str) -> str:
    """Name of the architecture."""
    return name.removeprefix("zoo:").split("/")[0]


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    best = better(read_rows(out))
    rows = dict(sorted(best.items(), key=lambda item: -item[1].on(UNSEEN)[0].critical_miou))
    columns = (
        ("mIoU", lambda s: s.miou),
        ("critical", lambda s: s.critical_miou),
        *((name, lambda s, name=name: class_iou(s, name)) for name in SMALL),
    )
    table(
        (
            "",
            "lr",
            *(f"{of}, {road}" for road in ("unseen", "familiar") for of, _ in columns),
            "images",
        ),
        (
            (
                name,
                f"{row.reports[0].experiment.training.lr:g}",
                *(figure(row.on(drive), of) for drive in (UNSEEN, FAMILIAR) for _, of in columns),
                f"{row.images:,.0f}",
            )
            for name, row in rows.items()
        ),
    )
    for drive in (UNSEEN, FAMILIAR):
        class_table({name: row.on(drive) for name, row in rows.items()})


def class_iou(scores: Scores, name: str) -> float:
    return float(scores.iou_C[scores.space.classes.index(name)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--rounds", type=int, default=16, help="budget: images of so many rounds")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        make(args.out, base(args.rounds), trials(), args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
