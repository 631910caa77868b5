"""Compression both ways, mIoU against megabytes: a table of docs/results.md.

The fleet, the roads and the pretrained network are those of benchmarks/pretrained_tables.py, with
FedAvg at its better rate; one run per row, and nothing is tuned. Rows with four epochs a round have
a quarter of the rounds, so that all rows see as many images.

    python benchmarks/codec_tables.py --out runs/codecs --jobs 2      # an hour; resumes
    python benchmarks/codec_tables.py --out runs/codecs --tables      # finished rows
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


def rows(rounds: int) -> Mapping[str, Mapping[str, Any]]:
    four_epochs = {"training.local_epochs": 4, "federation.rounds": rounds // 4}
    return {
        "whole": {},
        "topk4": {**both_ways("topk(4%)+int8"), **START},
        "topk1": {**both_ways("topk(1%)+int8"), **START},
        "adapters": {
            "model.adapter_rank": 16,
            "federation.sharing": "trained",
            **both_ways("topk(10%)+int8"),
            **START,
        },
        "epochs4": four_epochs,
        "epochs4-topk5": {**four_epochs, **both_ways("topk(5%)+int8"), **START},
    }


def print_tables(out: Path) -> None:
    """Print the finished rows."""
    there = read_rows(out)
    whole = there["whole"].megabytes if "whole" in there else float("nan")
    table(
        ("", "rounds", "up", "down", "MB", "times smaller", "held out", "unseen road", "critical",
         "familiar road", "critical"),
        (
            (
                name,
                str(row.reports[0].experiment.federation.rounds),
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
            for name, row in sorted(there.items(), key=lambda item: -item[1].megabytes)
        ),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--rounds", type=int, default=44)
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--tables", action="store_true", help="only print the finished rows")
    args = parser.parse_args()
    if not args.tables:
        runs = [{"name": name, **fields} for name, fields in rows(args.rounds).items()]
        make(args.out, base(args.rounds), runs, args.jobs)
    print_tables(args.out)


if __name__ == "__main__":
    main()
