"""A few frames of the server's evaluation sets, whose predictions a run stores at each scoring.

pictures/frames.json          the frames, with photo and truth
pictures/round-000011.json    the predictions of that round's model

Frames are chosen at the first scoring and stay the same, so that rounds can be compared. Pictures
are WebP in base64: photos lossy, maps of class ids lossless, each id a grey value. They are the
server's frames: no vehicle's own frames are stored.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg.clients import EvaluationSet, FleetData
from fleetseg.data.labels import IGNORE, LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.store.cache import Picked
from fleetseg.evaluation.predict import predict
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.files import write_atomic
from fleetseg.learning.inputs import Facts
from fleetseg.runs.scoring import Scorer, server_norms

FOLDER = "pictures"
_WIDEST = 480  # pixels of a stored picture; larger ones are shrunk
_CANDIDATES = 8  # frames per domain that are examined for the choice
_MISTAKES = 2  # confusions named for each frame


@dataclass(frozen=True)
class Frame:
    """One stored frame."""

    name: str
    set: str
    domain: str
    index: int  # in its set
    width: int
    height: int
    image: str
    truth: str


@dataclass(frozen=True)
class Seen:
    """The prediction of one model on one frame."""

    prediction: str
    wrong: float  # share of the labelled pixels, at the labels' own resolution
    mistakes: tuple[tuple[str, str, float], ...]  # (truth, prediction, share of the wrong pixels)
    by: str = ""  # which model, where clusters of vehicles have their own


class _Models:
    """The models of one scoring; each frame is predicted by the model that scores it."""

    def __init__(
        self, runtime: LocalRuntime, model: ModelState, clusters: ClusterModels | None
    ) -> None:
        self._runtime, self._clusters = runtime, clusters
        self._routes = clusters is not None and clusters.routes_images
        self._loaded = -1  # the number of the cluster
        runtime.whole.load(model)

    def load_for(self, image_HWC: Image_HWC) -> str:
        """Load the model that a frame is routed to; return its name, "" if it is the only one."""
        if self._clusters is None:
            return ""
        if not self._routes:
            return "the mean of the clusters’ models"
        cluster = self._clusters.cluster_of_image(image_HWC)
        if cluster != self._loaded:
            self._runtime.whole.load(self._clusters.model(cluster))
            self._loaded = cluster
        return f"the model of cluster {cluster + 1}"


class FrameKeeper:
    """Stores predictions of a run's chosen frames; does nothing if there are none."""

    def __init__(self, folder: Path, fleet_data: FleetData, runtime: LocalRuntime) -> None:
        settings = runtime.experiment.evaluation
        self._folder, self._runtime = folder / FOLDER, runtime
        self._space, self._number = fleet_data.space, settings.pictures
        self._sets = {part.name: part for part in fleet_data.evaluation}
        plain = server_norms(fleet_data, settings).name == "running"
        self._is_on = bool(self._number and self._sets and plain)
        self._frames: tuple[Frame, ...] = ()

    def keep(self, model: ModelState, round_: int, clusters: ClusterModels | None = None) -> None:
        """Predict the frames as they are scored, and write the predictions.

        Where images are routed to clusters, each is predicted by the model of the nearest cluster.
        """
        if not self._is_on:
            return
        models = _Models(self._runtime, model, clusters)
        if not self._frames:
            self._frames = read_frames(self._folder.parent) or self._choose(models)
        seen = [self._see(models, frame) for frame in self._frames]
        fields = {"round": round_, "frames": [asdict(each) for each in seen]}
        write_atomic(_path(self._folder, round_), json.dumps(fields) + "\n")

    def _choose(self, models: _Models) -> tuple[Frame, ...]:
        """Choose frames of each domain from the worst to the best of those examined."""
        groups = _by_domain(tuple(self._sets.values()))
        shares = _shared_out(self._number, len(groups))
        frames: list[Frame] = []
        for (name, domain), number in zip(groups, shares, strict=True):
            part, indices = self._sets[name], groups[name, domain]
            looked = spread(indices, max(number, _CANDIDATES)) if number else []
            wrong = {index: self._wrong(models, part, index) for index in looked}
            ranked = sorted(looked, key=lambda index: (-wrong[index], index))
            middle = [ranked[len(ranked) // 2]] if number == 1 else spread(ranked, number)
            frames += [_frame(part, domain, index) for index in (middle if number else [])]
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = {"frames": [asdict(frame) for frame in frames]}
        write_atomic(self._folder / "frames.json", json.dumps(rows) + "\n")
        return tuple(frames)

    def _predict(
        self, models: _Models, image_HWC: Image_HWC, label_HW: Label_HW
    ) -> tuple[Label_HW, str]:
        runtime, by = self._runtime, models.load_for(image_HWC)
        size_hw = (label_HW.shape[0], label_HW.shape[1])
        device, context = runtime.hardware.device, runtime.hardware.inference
        pred_NHW = predict(runtime.model, image_HWC[None], size_hw, device=device, context=context)
        pred_HW: Label_HW = pred_NHW[0]
        return pred_HW, by

    def _wrong(self, models: _Models, part: EvaluationSet, index: int) -> float:
        image_HWC, label_HW = part.scored.pairs[index]
        return wrong_share(label_HW, self._predict(models, image_HWC, label_HW)[0])

    def _see(self, models: _Models, frame: Frame) -> Seen:
        image_HWC, label_HW = self._sets[frame.set].scored.pairs[frame.index]
        pred_HW, by = self._predict(models, image_HWC, label_HW)
        small_HW = _shrunk(pred_HW, (frame.height, frame.width))
        return Seen(
            ids_picture(small_HW),
            wrong_share(label_HW, pred_HW),
            mistakes(label_HW, pred_HW, self._space),
            by,
        )


def keeping_frames(scorer: Scorer, keeper: FrameKeeper) -> Callable[..., Scored | str]:
    """Score as the scorer does, and store the scored models' predictions of the frames."""

    def score(
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord] = (),
        facts: Facts = MappingProxyType({}),
        clusters: ClusterModels | None = None,
    ) -> Scored | str:
        scored = scorer.score(model, round_, records, facts, clusters)
        if isinstance(scored, Scored):
            keeper.keep(model, round_, clusters)
        return scored

    return score


def wrong_share(label_HW: Label_HW, pred_HW: Label_HW) -> float:
    """Return the share of labelled pixels that are predicted wrong; 0 where none is labelled.

    >>> wrong_share(np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 0]], np.uint8))
    0.5
    """
    labelled_HW = label_HW != IGNORE
    wrong = int(((label_HW != pred_HW) & labelled_HW).sum())
    return wrong / max(1, int(labelled_HW.sum()))


def mistakes(
    label_HW: Label_HW, pred_HW: Label_HW, space: LabelSpace
) -> tuple[tuple[str, str, float], ...]:
    """Name the most frequent (truth, prediction) pairs, with their share of the wrong pixels."""
    wrong_HW = (label_HW != pred_HW) & (label_HW != IGNORE)
    codes = label_HW[wrong_HW].astype(np.int64) * space.num_classes + pred_HW[wrong_HW]
    if not len(codes):
        return ()
    counts = np.bincount(codes, minlength=space.num_classes**2)
    first = np.argsort(-counts, kind="stable")[:_MISTAKES]
    return tuple(
        (
            space.classes[code // space.num_classes],
            space.classes[code % space.num_classes],
            float(counts[code] / len(codes)),
        )
        for code in first.tolist()
        if counts[code]
    )


def spread(items: Sequence[int], number: int) -> list[int]:
    """Pick evenly spaced items including the first and the last; if only one, the first.

    >>> spread([10, 11, 12, 13, 14], 3), spread([10, 11], 6)
    ([10, 12, 14], [10, 11])
    """
    number = min(number, len(items))
    return [items[round(k * (len(items) - 1) / max(1, number - 1))] for k in range(number)]


def _by_domain(sets: Sequence[EvaluationSet]) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for part in sets:
        for index, domain in enumerate(part.scored.domains):
            groups.setdefault((part.name, domain), []).append(index)
    return dict(sorted(groups.items()))


def _shared_out(number: int, groups: int) -> list[int]:
    """Distribute frames over domains; if there are more domains than frames, some get none.

    >>> _shared_out(6, 4), _shared_out(2, 3)
    ([2, 2, 1, 1], [1, 1, 0])
    """
    return [number // groups + (k < number % groups) for k in range(groups)]


def _frame(part: EvaluationSet, domain: str, index: int) -> Frame:
    pairs = part.scored.pairs
    image_HWC, label_HW = pairs[index]
    height, width = label_HW.shape
    if width > _WIDEST:
        height, width = max(1, round(height * _WIDEST / width)), _WIDEST
    name = pairs.samples[index].id if isinstance(pairs, Picked) else f"{part.name}/{index:04d}"
    photo = Image.fromarray(image_HWC).resize((width, height), Image.Resampling.LANCZOS)
    truth = ids_picture(_shrunk(label_HW, (height, width)))
    return Frame(name, part.name, domain, index, width, height, photo_picture(photo), truth)


def _shrunk(ids_HW: Label_HW, size_hw: tuple[int, int]) -> Label_HW:
    """Shrink a map by nearest neighbour."""
    rows, columns = (
        (np.arange(small) * large + large // 2) // small
        for small, large in zip(size_hw, ids_HW.shape, strict=True)
    )
    return np.ascontiguousarray(ids_HW[rows[:, None], columns[None, :]])


def ids_picture(ids_HW: npt.NDArray[np.uint8]) -> str:
    """Encode a map of ids as lossless WebP in base64, each id a grey value."""
    return _webp(Image.fromarray(ids_HW).convert("RGB"), lossless=True, quality=60, method=3)


def photo_picture(photo: Image.Image) -> str:
    """Encode a photo as WebP in base64."""
    return _webp(photo, quality=72, method=4)


def _webp(image: Image.Image, **how: Any) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", **how)
    return base64.b64encode(file.getvalue()).decode("ascii")


def ids_of(picture: str) -> Label_HW:
    """Decode what `ids_picture` wrote."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return np.asarray(image.convert("RGB"))[:, :, 0].copy()


def read_frames(folder: Path) -> tuple[Frame, ...]:
    """Read the frames of a run folder; empty if none were stored or the file is damaged."""
    fields = _read(folder / FOLDER / "frames.json")
    try:
        return tuple(Frame(**row) for row in fields.get("frames", ()))
    except TypeError:
        return ()


def read_seen(folder: Path) -> dict[int, tuple[Seen, ...]]:
    """Read the predictions of all scored rounds; damaged files are left out."""
    found = {}
    for path in sorted((folder / FOLDER).glob("round-*.json")):
        if (seen := _seen(path)) is not None:
            found[seen[0]] = seen[1]
    return found


def read_seen_in(folder: Path, round_: int) -> tuple[Seen, ...]:
    """Read the predictions of one round; empty if none were stored."""
    seen = _seen(_path(folder / FOLDER, round_))
    return () if seen is None else seen[1]


def _path(pictures: Path, round_: int) -> Path:
    return pictures / f"round-{round_:06d}.json"


def _seen(path: Path) -> tuple[int, tuple[Seen, ...]] | None:
    fields = _read(path)
    try:
        return int(fields["round"]), tuple(
            Seen(
                row["prediction"],
                row["wrong"],
                tuple(map(tuple, row["mistakes"])),
                row.get("by", ""),
            )
            for row in fields["frames"]
        )
    except (KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
