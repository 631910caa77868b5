"""Fewer bytes both ways, mIoU against megabytes: a table of docs/results.md.

The fleet, the roads and the pretrained network are those of benchmarks/pretrained_tables.py, FedAvg
with its better rate; one run for each row, and nothing is tuned.

    python benchmarks/codec_tables.py --out runs/codecs --jobs 2      # an hour; goes on
    python benchmarks/codec_tables.py --out runs/codecs --tables      # what is there
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrained_tables import base
from tables import FAMILIAR, UNSEEN, figure, make, read_rows, table

START = {"federation.downlink_start": "int8(channel)"}


def both_ways(codec: str) -> dict[str, Any]:
    return {"federation.uplink": codec, "federation.downlink": codec}


ROWS: Mapping[str, Mapping[str, Any]] = {
    "whole": {},
    "topk4": {**both_ways("topk(4%)+int8"), **START},
    "topk1": {**both_ways("topk(1%)+int8"), **START},
    "adapters": {
        "model.adapter_rank": 16,
        "federation.sharing": "trained",
        **both_ways("topk(10%)+int8"),
        **START,
    },
}


def print_tables(out: Path) -> None:
    """Print what is there."""
    rows = read_rows(out)
    whole = rows["whole"].megabytes if "whole" in rows else float("nan")
    table(
        ("", "up", "down", "MB", "times fewer", "held out", "unseen road", "critical",
         "familiar road", "critical"),
        (
            (
                name,
                row.reports[0].experiment.federation.uplink,
                row.reports[0].experiment.federation.downlink,
                f"{row.megabytes:,.1f}",
                f"{whole / row.megabytes:.1f}",
                figure(row.held_out, lambda s: s.miou),
                figure(row.on(UNSEEN), lambda s: s.miou),
                figure(row.on(UNSEEN), lambda s: s.critical_miou),
                figure(row.on(FAMILIAR), lambda s: s.miou),
                figure(row.on(FAMILIAR), lambda s: s.critical_miou),
            )
            for name, row in sorted(rows.items(), key=lambda item: -item[1].megabytes)
        ),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--rounds", type=int, default=44)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.tables:
        runs = [{"name": name, **fields} for name, fields in ROWS.items()]
        make(args.out, base(args.rounds), runs, args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
