"""Pictures of a run for its trackers: scored frames, their truth, and what the round's model sees.

Only frames of the server's own sets are shown: those of vehicles stay with the vehicles, also where
these are simulated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fleetseg.clients import HELD_OUT, FleetData
from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.pictures import contact_sheet
from fleetseg.evaluation.predict import predict
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.runs.scored_frames import ScoredFrames
from fleetseg.runs.tracked import Picture

NOT_SCORED_SO = (
    "no pictures are tracked: evaluation.norms takes statistics of whole test sets, and a picture "
    "of some frames would show another model than the one that is scored"
)
OF_CLUSTERS = "no pictures are tracked: each cluster of vehicles has a model of its own"


def picture_of(
    fleet_data: FleetData, runtime: LocalRuntime, model: Callable[[], ModelState]
) -> tuple[Picture, list[str]]:
    """Return what draws a round's picture, and why there will be none.

    `model` gives the newest round's; it is loaded into the runtime as it is to be scored, which
    clients' work overwrites.
    """
    experiment = runtime.experiment
    settings, total = experiment.tracking, experiment.federation.rounds
    sets = tuple(part for part in fleet_data.evaluation if part.name != HELD_OUT)
    if not settings.to or not settings.frames or not sets:
        return _nothing, []
    if experiment.evaluation.norms != "running":
        return _nothing, [NOT_SCORED_SO]
    if runtime.exchange.is_clustered:
        return _nothing, [OF_CLUSTERS]
    frames = list(ScoredFrames(sets).named_frames())
    chosen = [frames[k] for k in _evenly(len(frames), settings.frames)]

    def draw(record: RoundRecord) -> Image_HWC | None:
        due = record.round == total or record.round % settings.picture_every == 0
        if record.scored is None or not due:
            return None
        runtime.whole.load(model())
        rows = []
        for _, part, number in chosen:
            image_HWC, label_HW = part.scored.pairs[number]
            seen_NHW = predict(
                runtime.model,
                image_HWC[None],
                (label_HW.shape[0], label_HW.shape[1]),
                device=runtime.hardware.device,
                context=runtime.hardware.inference,
            )
            rows.append((image_HWC, label_HW, {f"round {record.round}": seen_NHW[0]}))
        names = [name for name, _, _ in chosen]
        return np.asarray(contact_sheet(rows, names, fleet_data.space), dtype=np.uint8)

    return draw, []


def _nothing(record: RoundRecord) -> None:
    return None


def _evenly(length: int, wished: int) -> list[int]:
    """Take numbers below a length at even distances, from the middle of as many parts.

    >>> _evenly(10, 3), _evenly(2, 5), _evenly(9, 1)
    ([1, 5, 8], [0, 1], [4])
    """
    number = min(length, wished)
    return [(2 * k + 1) * length // (2 * number) for k in range(number)]
