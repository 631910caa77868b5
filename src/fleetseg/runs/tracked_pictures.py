"""Pictures for a run's trackers: its stored frames, their truth, and a round's predictions."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from fleetseg.clients import HELD_OUT
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.pictures import contact_sheet
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.kept_frames import ids_of, read_frames, read_seen_in, spread
from fleetseg.runs.tracked import Picture


def kept_picture(run_folder: Path, space: LabelSpace, number: int) -> Picture:
    """Return a function that draws a round's predictions of up to `number` stored frames.

    Frames of vehicles are never shown, even where vehicles are simulated: a tracker may send a
    picture anywhere.
    """

    def show(record: RoundRecord) -> Image_HWC | None:
        if record.scored is None or number == 0:
            return None
        frames, seen = read_frames(run_folder), read_seen_in(run_folder, record.round)
        own = [k for k, frame in enumerate(frames) if frame.set != HELD_OUT]
        if not own or len(seen) != len(frames):
            return None
        chosen = spread(own, number)
        rows = [
            (
                _photo(frames[k].image),
                ids_of(frames[k].truth),
                {f"round {record.round}": ids_of(seen[k].prediction)},
            )
            for k in chosen
        ]
        titles = [f"{frames[k].name}: {seen[k].wrong:.1%} wrong" for k in chosen]
        return np.asarray(contact_sheet(rows, titles, space), dtype=np.uint8)

    return show


def _photo(picture: str) -> Image_HWC:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return np.asarray(image.convert("RGB"))
