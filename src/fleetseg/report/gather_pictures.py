"""The stored frames of a run with their predictions, as pictures for the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg.data.labels import IGNORE, LabelSpace
from fleetseg.evaluation.pictures import colourise
from fleetseg.report.figures import FrameFigures
from fleetseg.runs.kept_frames import Frame, Seen, ids_of, read_frames, read_seen

CRITICAL, WRONG = (0, 60, 170), (222, 116, 0)
"""Colours of wrong pixels: where the truth is safety-critical, and elsewhere."""
MAX_BYTES = 2_500_000
"""Limit for earlier rounds' maps on a page; beyond it, evenly spaced rounds are kept."""


def frame_figures(folder: Path, space: LabelSpace, last_round: int) -> tuple[FrameFigures, ...]:
    """Return the stored frames, worst first by the newest scoring; empty if there are none.

    Rounds after `last_round` belong to a run that was rolled back, and are left out.
    """
    frames = read_frames(folder)
    seen = {n: each for n, each in read_seen(folder).items() if n <= last_round}
    seen = {n: each for n, each in seen.items() if len(each) == len(frames)}
    if not frames or not seen:
        return ()
    rounds = _thinned(seen)
    found = [
        _figures(frame, space, [(n, seen[n][k]) for n in rounds]) for k, frame in enumerate(frames)
    ]
    return tuple(sorted(found, key=lambda frame: -frame.wrong_share))


def _thinned(seen: dict[int, tuple[Seen, ...]]) -> list[int]:
    """Choose evenly spaced rounds, including the first and the last, whose maps fit on a page."""
    rounds = sorted(seen)
    size = sum(len(each.prediction) for of_round in seen.values() for each in of_round)
    number = max(2, int(len(rounds) * min(1.0, MAX_BYTES / max(1, size))))
    if number >= len(rounds):
        return rounds
    return [rounds[round(k * (len(rounds) - 1) / (number - 1))] for k in range(number)]


def _figures(frame: Frame, space: LabelSpace, seen: list[tuple[int, Seen]]) -> FrameFigures:
    truth_HW, newest = ids_of(frame.truth), seen[-1][1]
    pred_HW = ids_of(newest.prediction)
    photo_HWC = _photo(frame.image)
    return FrameFigures(
        name=frame.name,
        domain=frame.domain,
        width=frame.width,
        height=frame.height,
        image=f"data:image/webp;base64,{frame.image}",
        truth=_uri(colourise(truth_HW, space)),
        prediction=_uri(colourise(pred_HW, space)),
        wrong=_uri(wrong_picture(photo_HWC, truth_HW, pred_HW, space), lossless=False),
        wrong_share=newest.wrong,
        mistakes=newest.mistakes,
        truth_ids=frame.truth,
        ids_by_round=tuple((n, each.prediction, each.wrong) for n, each in seen),
        by=newest.by,
    )


def wrong_picture(
    photo_HWC: npt.NDArray[np.uint8],
    truth_HW: npt.NDArray[np.uint8],
    pred_HW: npt.NDArray[np.uint8],
    space: LabelSpace,
) -> npt.NDArray[np.uint8]:
    """Mark the wrong pixels on a photo whose greys are compressed to 170 to 250."""
    grey_HW = 170 + np.round(photo_HWC.astype(np.float64).mean(axis=2) / 255 * 80)
    picture_HWC = np.repeat(grey_HW[:, :, None], 3, axis=2).astype(np.uint8)
    wrong_HW = (truth_HW != pred_HW) & (truth_HW != IGNORE)
    ids = [space.classes.index(name) for name in space.critical]
    critical_HW = np.isin(truth_HW, ids)
    picture_HWC[wrong_HW] = WRONG
    picture_HWC[wrong_HW & critical_HW] = CRITICAL
    return picture_HWC


def _photo(picture: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return np.asarray(image.convert("RGB"))


def _uri(picture_HWC: npt.NDArray[np.uint8], *, lossless: bool = True) -> str:
    file = io.BytesIO()
    quality = 60 if lossless else 80
    Image.fromarray(picture_HWC).save(
        file, format="WEBP", lossless=lossless, quality=quality, method=3
    )
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
