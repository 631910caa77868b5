"""Confusion matrices: ours against torchmetrics and cityscapesScripts, on one thread.

    python benchmarks/metrics.py

Prints milliseconds for one frame of 1024 x 2048 pixels and 19 classes (the best of several runs)
and how many times faster ours is. All three count the same maps, and their counts are compared.

* torchmetrics: `multiclass_confusion_matrix(ignore_index=255)` on uint8 tensors; the second figure
  is without its validation of the ids (ours always validates).
* cityscapesScripts: its own `evaluatePair` with instance scores off, first on PNG files, as in its
  normal use, then (the harder comparison) on arrays in memory, so that no PNG is decoded.

Maps: "blobs" are smooth random regions and a prediction that differs at their borders; "squares"
makes 15 % of the prediction wrong in 16 x 16 squares; "pure noise" has no two equal neighbours;
"real" is a CamVid annotation (if FLEETSEG_DATA or ../shared/data has it), enlarged, against a
shifted copy. "edges" is the share of pixels whose pair of ids is not that of the pixel before.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fleetseg.data.labels import CITYSCAPES_ID_TO_TRAIN
from fleetseg.evaluation.confusion import confusion
from fleetseg.rng import generator

warnings.simplefilter("ignore")
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as cityscapes  # noqa: E402
from torchmetrics.functional.classification import multiclass_confusion_matrix  # noqa: E402

SIZE_HW, NUM_CLASSES = (1024, 2048), 19
DATA_ROOT = Path(
    os.environ.get("FLEETSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
RAW_IDS = np.flatnonzero(CITYSCAPES_ID_TO_TRAIN != 255).astype(np.uint8)
Maps = tuple[np.ndarray, np.ndarray]


def blobs(rng: np.random.Generator) -> np.ndarray:
    """The largest of 19 smooth random fields, at every pixel."""
    fields = torch.from_numpy(rng.random((1, NUM_CLASSES, 8, 16), np.float32))
    smooth = functional.interpolate(fields, SIZE_HW, mode="bicubic")
    return smooth.argmax(1)[0].to(torch.uint8).numpy()


def squares(rng: np.random.Generator, share: float) -> np.ndarray:
    """True in this share of all 16 x 16 squares."""
    coarse = rng.random((SIZE_HW[0] // 16, SIZE_HW[1] // 16)) < share
    return np.kron(coarse, np.ones((16, 16), np.bool_))


def all_maps() -> Iterator[tuple[str, Maps]]:
    rng = generator(0, purpose="benchmark maps")
    labels, others = blobs(rng), blobs(rng)
    preds = np.roll(labels, (3, 3), (0, 1))
    labels[blobs(rng) == 0] = 255
    yield "blobs", (labels, preds)
    yield "squares", (labels, np.where(squares(rng, 0.15), others, preds))
    noise = rng.integers(0, NUM_CLASSES + 1, SIZE_HW, np.uint8)
    noise[noise == NUM_CLASSES] = 255
    yield "pure noise", (noise, rng.integers(0, NUM_CLASSES, SIZE_HW, np.uint8))
    for file in sorted((DATA_ROOT / "camvid" / "valannot").glob("*.png"))[:1]:
        real = np.array(Image.open(file).resize(SIZE_HW[::-1], Image.Resampling.NEAREST))
        shifted = np.roll(real, (4, 6), (0, 1))
        yield "real", (np.where(real == 11, 255, real).astype(np.uint8), shifted % 11)


def best_ms(works: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Best time of each; turns of three runs alternate, so a busy machine affects all alike."""
    times_s: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            for _ in range(3):
                start_s = time.perf_counter()
                work()
                times_s[name].append(time.perf_counter() - start_s)
    return {name: 1000 * min(times) for name, times in times_s.items()}


class InMemory:
    """A stand-in for an opened picture, so that `evaluatePair` decodes nothing."""

    def __init__(self, ids_HW: np.ndarray) -> None:
        self.ids_HW, self.size = ids_HW, ids_HW.shape[::-1]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.ids_HW

    @staticmethod
    def open(picture: InMemory) -> InMemory:
        """Stand in for PIL's Image.open."""
        return picture


def edges(maps: Maps) -> float:
    """Share of pixels whose label or prediction differs from the previous pixel's."""
    labels, preds = (ids_HW.reshape(-1) for ids_HW in maps)
    return float(np.mean((labels[1:] != labels[:-1]) | (preds[1:] != preds[:-1])))


def torchmetrics_counts(maps: Maps, validate: bool) -> np.ndarray:
    labels, preds = (torch.from_numpy(ids_HW) for ids_HW in maps)
    return multiclass_confusion_matrix(
        preds, labels, NUM_CLASSES, ignore_index=255, validate_args=validate
    ).numpy()


def cityscapes_counts(pred: Any, truth: Any) -> np.ndarray:
    """Counts of cityscapesScripts, in train ids; the pictures are paths or `InMemory`."""
    matrix = cityscapes.generateMatrix(cityscapes.args)
    if isinstance(pred, Path):
        cityscapes.evaluatePair(str(pred), str(truth), matrix, {}, {}, cityscapes.args)
    else:
        pil, cityscapes.Image = cityscapes.Image, InMemory
        cityscapes.evaluatePair(pred, truth, matrix, {}, {}, cityscapes.args)
        cityscapes.Image = pil
    return matrix[np.ix_(RAW_IDS, RAW_IDS)].astype(np.int64)


def row(name: str, maps: Maps, folder: Path) -> str:
    raw_of = np.zeros(256, np.uint8)  # raw id 0 is "unlabeled", which Cityscapes ignores
    raw_of[CITYSCAPES_ID_TO_TRAIN[RAW_IDS]] = RAW_IDS
    truth, pred = (InMemory(raw_of[ids_HW]) for ids_HW in maps)
    files = folder / "pred.png", folder / "truth_labelIds.png"
    for file, picture in zip(files, (pred, truth), strict=True):
        Image.fromarray(picture.ids_HW).save(file)
    works = {
        "ours": lambda: confusion(*maps, NUM_CLASSES),
        "torchmetrics": lambda: torchmetrics_counts(maps, validate=True),
        "no validation": lambda: torchmetrics_counts(maps, validate=False),
        "cityscapesScripts": lambda: cityscapes_counts(*files),
        "the same, no PNG": lambda: cityscapes_counts(pred, truth),
    }
    for work in works.values():
        assert np.array_equal(work(), confusion(*maps, NUM_CLASSES))
    ms = best_ms(works, turns=7)
    ours_ms = ms.pop("ours")
    cells = "".join(f" {f'{other:.2f} ({other / ours_ms:.1f}x)':>18}" for other in ms.values())
    return f"{name:10} {edges(maps):7.1%} {ours_ms:7.2f}{cells}"


def main() -> None:
    torch.set_num_threads(1)
    cityscapes.args.evalInstLevelScore = False
    compiled = "compiled" if cityscapes.CSUPPORT else "pure Python, as pip installs it"
    print(f"{platform.platform()}, torch {torch.__version__}, numpy {np.__version__}, 1 thread")
    print("ms per 1024 x 2048 frame, 19 classes; in brackets: ratio to ours")
    print(f"cityscapesScripts is {compiled}")
    heads = ("torchmetrics", "no validation", "cityscapesScripts", "the same, no PNG")
    print(f"{'maps':10} {'edges':>7} {'ours':>7}" + "".join(f" {head:>18}" for head in heads))
    with tempfile.TemporaryDirectory() as folder:
        for name, maps in all_maps():
            print(row(name, maps, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
