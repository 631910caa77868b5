"""Every preset on two more fleets: the tables of docs/results.md.

* countries: CamVid (Cambridge) and IDD-Lite (India), twelve vehicles, seven classes; scored on
  CamVid's `val/` and on every tenth Indian drive, which no vehicle trains on.
* painted: three synthetic cities by day, in rain and at dusk, a vehicle for each; scored on other
  streets of these cities, and on two more cities at night and in fog, which no vehicle has seen.

Nothing is tuned here. Each row has the settings that benchmarks/method_tables.py found better on
the frames that another fleet, CamVid's, holds out; they are read from that script's folder.

    python benchmarks/scenario_tables.py --fleet painted --trials runs/methods --out runs/painted
    python benchmarks/scenario_tables.py --fleet painted --out runs/painted --tables
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from method_tables import KEEPS_A_PART, ROWS, better
from tables import Row, camvid, figure, india, make, read_rows, table, trial_runs

SEEN = {"cities": ["amber", "birch", "delta"], "conditions": ["day", "rain", "dusk"]}
NEVER_SEEN = {"cities": ["coral", "ember"], "conditions": ["night", "fog"]}


def countries() -> dict[str, Any]:
    """Twelve vehicles in two countries."""
    train, scored = india()
    data = {"label_space": "idd7", "size": [120, 160], "sources": [camvid(), train]}
    return {
        "data": {**data, "evaluation": [camvid(split="val"), scored]},
        "partition": {"kind": "natural", "by": "sequence", "clients": 12},
        "evaluation": {"by": "dataset"},
        "training": {"crop": [96, 128], "batch_size": 8},
        "federation": {"cohort": 4, "rounds": 20},
    }


def painted() -> dict[str, Any]:
    """Nine vehicles, each in a city and a weather of its own."""

    def source(where: Mapping[str, Any], frames: int, split: str = "train") -> dict[str, Any]:
        return {"kind": "synthetic", "split": split, "frames_per_drive": frames, **where}

    scored = [source(SEEN, 4, "val"), source(NEVER_SEEN, 9, "val")]
    return {
        "data": {"size": [144, 192], "sources": [source(SEEN, 20)], "evaluation": scored},
        "partition": {"kind": "natural", "by": "sequence"},
        "evaluation": {"by": "condition"},
        "training": {"crop": [96, 128], "batch_size": 4},
        "federation": {"rounds": 30},
    }


FLEETS: dict[str, Callable[[], dict[str, Any]]] = {"countries": countries, "painted": painted}


def base(fleet: str, scored: bool) -> dict[str, Any]:
    """Settings that the runs of a fleet share; without `scored`, the server's sets are left out."""
    own = FLEETS[fleet]()
    data = own["data"] if scored else {**own["data"], "evaluation": []}
    return {
        "data": data,
        "partition": {**own["partition"], "holdout": 0.2},
        "model": {"name": "fast_scnn"},
        "training": {
            "optimiser": "sgd", "lr": 0.4, "momentum": 0.9, "local_epochs": 1,
            "class_weights": "fleet", **own["training"],
        },
        "federation": own["federation"],
        "evaluation": {"every": 0, "on_clients": True, **own["evaluation"]},
        "engine": {"precision": "fp32"},
    }  # fmt: skip


def chosen(trials: Path) -> list[dict[str, Any]]:
    """The better trial of each preset on the tuning fleet, under the preset's name."""
    rows, runs = read_rows(trials / "tuning"), {run["name"]: run for run in trial_runs(ROWS)}
    tried = [name for name in ROWS if {f"{name}.0", f"{name}.1"} <= set(rows)]
    return [{**runs[f"{name}.{better(rows, name)}"], "name": name} for name in tried]


def make_tables(fleet: str, trials: Path, out: Path, jobs: int) -> None:
    """Make the runs, or resume them."""
    runs = chosen(trials)
    whole = [run for run in runs if run["name"] not in KEEPS_A_PART]
    make(out / "whole", base(fleet, scored=True), whole, jobs)
    parts = [run for run in runs if run["name"] in KEEPS_A_PART]
    make(out / "parts", base(fleet, scored=False), parts, jobs)


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    rows = {**read_rows(out / "whole"), **read_rows(out / "parts")}
    roads = sorted({road for row in rows.values() for road in row.roads})
    first = dict(sorted(rows.items(), key=lambda item: -item[1].held_out[0].miou))
    head = [part for road in roads for part in (road, "critical")]
    table(
        ("", "held out", "critical", "worst vehicle", *head, "images", "MB"),
        (_line(name, row, roads) for name, row in first.items()),
    )


def _line(name: str, row: Row, roads: list[str]) -> tuple[str, ...]:
    cells = []
    for road in roads:
        there = road in row.roads
        cells += [figure(row.on(road), lambda s: s.miou) if there else "–"]
        cells += [figure(row.on(road), lambda s: s.critical_miou) if there else "–"]
    return (
        name,
        figure(row.held_out, lambda s: s.miou),
        figure(row.held_out, lambda s: s.critical_miou),
        f"{min(row.by_vehicle.values()):.3f}",
        *cells,
        f"{row.images:,.0f}",
        f"{row.megabytes:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fleet", choices=sorted(FLEETS), required=True)
    parser.add_argument("--trials", type=Path, help="folder of benchmarks/method_tables.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweeps")
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        if args.trials is None:
            parser.error("--trials is required: the folder with the settings")
        make_tables(args.fleet, args.trials, args.out, args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
