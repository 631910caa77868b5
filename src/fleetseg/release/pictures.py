"""The frames that decided, as pictures: where the candidate is furthest behind the current model.

Suffixes: R rows, H x W pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg.data.labels import IGNORE, LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.evaluation import predict
from fleetseg.evaluation.pictures import palette_image
from fleetseg.judging.corruptions import corrupted
from fleetseg.judging.counts import Conf_RCC, Rows
from fleetseg.judging.measure import Frame, seen
from fleetseg.release.judge import Check, Sides
from fleetseg.runs.inference import ReadyModel

_A_CHECK = 2  # frames shown for each check that decided
_AT_MOST = 8
_UNDECIDED = 4  # frames shown where no check decided
_KINDS = ("class", "domain", "robustness", "overall")  # the most telling kinds first
_SEVERITY = 2  # severity at which corrupted frames are shown
_WIDTH = 420  # pixels of a panel
_WRONG = (224, 49, 49)


@dataclass(frozen=True)
class Chosen:
    """A frame to show, and the reason."""

    name: str
    why: str
    corruption: str = ""  # "" = the frame as it is
    decided: bool = True  # False = shown although no check fell because of it


@dataclass(frozen=True)
class Panels:
    """A frame as the page shows it: pictures as data URIs, by name."""

    chosen: Chosen
    pictures: dict[str, str]


def choose(sides: Sides, deciding: Sequence[Check]) -> tuple[Chosen, ...]:
    """Choose the frames that are furthest behind: for each deciding check, or else over all."""
    if sides.current is None:
        return ()
    now, new = sides.current.clean, sides.candidate.clean
    shown = [c for kind in _KINDS for c in deciding if c.kind == kind]
    if not shown:
        worst = _behind(now, new, None)[:_UNDECIDED]
        return tuple(Chosen(name, _more(rise), decided=False) for name, rise in worst)
    found: dict[tuple[str, str], Chosen] = {}
    share = min(_A_CHECK, max(1, _AT_MOST // len(shown)))
    for check in shown:
        others = [c for c in _of_check(sides, check) if (c.name, c.corruption) not in found]
        found |= {(chosen.name, chosen.corruption): chosen for chosen in others[:share]}
    return tuple(found.values())[:_AT_MOST]


def _more(rise: int, what: str = "", where: str = "") -> str:
    return f"{rise:,} more wrong {what}pixels than the current model{where}"


def _of_check(sides: Sides, check: Check) -> Iterator[Chosen]:
    assert sides.current is not None
    now, new, class_id, kind = sides.current.clean, sides.candidate.clean, None, ""
    if check.kind == "class":
        class_id = sides.space.classes.index(check.name)
    elif check.kind == "domain":
        now, new = now.of_domain(check.name), new.of_domain(check.name)
    elif check.kind == "robustness":
        kind = check.name
        now = sides.current.worse[kind, _SEVERITY]
        new = sides.candidate.worse[kind, _SEVERITY]
    what = f"{check.name} " if check.kind == "class" else ""
    where = f" in {kind}, severity {_SEVERITY} of 3" if kind else ""
    for name, rise in _behind(now, new, class_id):
        yield Chosen(name, _more(rise, what, where), kind)


def _behind(now: Rows, new: Rows, class_id: int | None) -> list[tuple[str, int]]:
    """List frames by how many more pixels the candidate gets wrong, most first."""
    rise_R = _wrong(new.conf_RCC, class_id) - _wrong(now.conf_RCC, class_id)
    order = np.argsort(-rise_R, kind="stable")
    return [(new.rows[k].name, int(rise_R[k])) for k in order if rise_R[k] > 0]


def _wrong(conf_RCC: Conf_RCC, class_id: int | None) -> npt.NDArray[np.int64]:
    """Count wrong pixels of each row: all, or the misses and false alarms of one class."""
    hits_RC = np.diagonal(conf_RCC, axis1=1, axis2=2)
    if class_id is None:
        wrong: npt.NDArray[np.int64] = conf_RCC.sum(axis=(1, 2)) - hits_RC.sum(axis=1)
    else:
        both = conf_RCC[:, class_id, :].sum(axis=1) + conf_RCC[:, :, class_id].sum(axis=1)
        wrong = both - 2 * hits_RC[:, class_id]
    return wrong


def draw(
    chosen: Sequence[Chosen],
    candidate: tuple[ReadyModel, Sequence[Frame]],
    current: tuple[ReadyModel, Sequence[Frame]],
    seed: int,
) -> tuple[Panels, ...]:
    """Draw the frames: image, truth, both models' predictions, and what is newly wrong."""
    number = {frame.row.name: k for k, frame in enumerate(candidate[1])}
    drawn = []
    for one in chosen:
        maps, image_HWC, label_HW = {}, None, None
        for title, (ready, frames) in (("current", current), ("candidate", candidate)):
            image_HWC, label_HW = frames[number[one.name]].pair()
            if one.corruption:
                image_HWC = corrupted(one.corruption, _SEVERITY, image_HWC, one.name, seed)
            with ready.on_device(), predict.evaluating(ready.segmenter):
                maps[title], _ = seen(ready, image_HWC, label_HW.shape)
        assert image_HWC is not None
        assert label_HW is not None
        drawn.append(Panels(one, _panels(image_HWC, label_HW, maps, candidate[0].space)))
    return tuple(drawn)


def _panels(
    image_HWC: Image_HWC, label_HW: Label_HW, maps: dict[str, Label_HW], space: LabelSpace
) -> dict[str, str]:
    height, width = label_HW.shape
    small = (_WIDTH, round(_WIDTH * height / width)) if width > _WIDTH else (width, height)
    photo = Image.fromarray(image_HWC).resize(small, Image.Resampling.BILINEAR)
    scored_HW = label_HW != IGNORE
    newly_HW = scored_HW & (maps["current"] == label_HW) & (maps["candidate"] != label_HW)
    newly = Image.fromarray(newly_HW).resize(small, Image.Resampling.NEAREST)
    marked_HWC = np.array(photo.convert("L").convert("RGB")) // 2 + 90
    marked_HWC[np.array(newly)] = _WRONG
    pictures = {"image": _uri(photo, "JPEG")}
    for title, map_HW in {"truth": label_HW, **maps}.items():
        pictures[title] = _uri(palette_image(map_HW, space).resize(small), "PNG")
    pictures["newly wrong"] = _uri(Image.fromarray(marked_HWC.astype(np.uint8)), "JPEG")
    return pictures


def _uri(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, format=kind, quality=82) if kind == "JPEG" else picture.save(file, kind)
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}"
