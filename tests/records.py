"""Records of rounds, and scores of a wished height, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.protocol import Protocol, ScoredSet
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.messages import Failure
from fleetseg.federation.records import RoundRecord

SPACE = LabelSpace("two", ("road", "car"), ((0, 0, 0), (9, 9, 9)), ("car",))
WRONG = 3_000_000  # pixels
PROTOCOL = Protocol(
    size_hw=(96, 128),
    scored_at="label resolution",
    space="two",
    classes=("road", "car"),
    critical=("car",),
    ignored_id=255,
    norms="running",
    by="domain",
    sets=(ScoredSet("test", 2, "cd" * 32),),
    seen=("day",),
    unseen=("rain",),
    rounds=(9,),
)


def conf(miou: float, critical: float | None = None) -> Conf_CC:
    """Make the matrix of two classes with these IoUs, to six digits."""
    car = miou if critical is None else critical
    road = 2 * miou - car
    if road == car == 1.0:
        return np.array([[8, 0], [0, 8]])
    right = [round(WRONG * iou / (1 - iou)) for iou in (road, car)]
    return np.array([[right[0], WRONG // 2], [WRONG - WRONG // 2, right[1]]])


def scored(
    miou: float,
    on: Iterable[str] = ("test",),
    missing: Iterable[str] = (),
    critical: float | None = None,
) -> Scored:
    """Make scores of a wished mIoU."""
    return Scored(SPACE, {"day": conf(miou, critical)}, tuple(on), tuple(missing))


def record(round_: int = 1, **changes: Any) -> RoundRecord:
    """Make the record of a round in which all went well."""
    fields: dict[str, Any] = {
        "round": round_,
        "cohort": ("a", "b"),
        "accepted": ("a", "b"),
        "failures": (),
        "quorum": True,
        "loss": 0.5,
        "steps": 4,
        "critical_path_steps": 2,
        "images_seen": 10,
        "bytes_down": 1000,
        "bytes_up": 600,
        "seconds": 1.5,
    }
    return RoundRecord(**{**fields, **changes})


def failed(client: str, kind: Any, reason: str = "why") -> Failure:
    """Make a failure."""
    return Failure(client, kind, reason)
