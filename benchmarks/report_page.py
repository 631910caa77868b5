"""Size of a long run's report page and the time to write it: 100 rounds, 20 vehicles.

    python benchmarks/report_page.py [--rounds 100] [--vehicles 20]

A run folder of that shape is made up: every round scored, every vehicle scored at the end, a tenth
of the requests failing, the last score of 600 frames in as many blocks, and six frames of synthetic
streets (360 x 480 pixels) kept at every scoring. The wrong pixels of their predictions are blobs,
of which later rounds have fewer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg import rng
from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sources import open_source
from fleetseg.data.store.cache import Picked, open_store
from fleetseg.evaluation.confusion import Conf_CC, confusion
from fleetseg.evaluation.protocol import Protocol, ScoredSet
from fleetseg.evaluation.scored import Scored
from fleetseg.experiment_file import make_experiment, to_toml
from fleetseg.federation.messages import Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.report import write_report
from fleetseg.runs.enrolled import FILE
from fleetseg.runs.image_counts import ImageCounts, keep_counts
from fleetseg.runs.kept_frames import (
    FOLDER,
    Frame,
    Seen,
    ids_picture,
    mistakes,
    photo_picture,
    wrong_share,
)
from fleetseg.runs.records import RunEnd
from fleetseg.runs.starts import record_resume
from fleetseg.runs.vehicle_looks import FILE as LOOKS
from fleetseg.runs.vehicle_looks import Look

SIZE = (360, 480)
Maps = Sequence[npt.NDArray[np.uint8]]


def main() -> None:
    """Make the folder, write the page, print both sizes and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--vehicles", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None, help="write the folder here and keep it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch) / "run"
        made_up(folder, given.rounds, given.vehicles, Path(scratch) / "cache")
        kept = sum(path.stat().st_size for path in (folder / FOLDER).iterdir())
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        page = write_report([folder])
        seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        print(f"{given.rounds} rounds, {given.vehicles} vehicles")
        size_mb = page.stat().st_size / 1e6
        print(
            f"page {size_mb:.2f} MB, written in {seconds:.1f} s ({cpu_s:.1f} s of processor time)"
        )
        print(f"kept predictions {kept / 1e6:.2f} MB on disk")


def made_up(folder: Path, rounds: int, vehicles: int, cache: Path) -> None:
    """Write the run folder."""
    (folder / FOLDER).mkdir(parents=True)
    images, truths = streets(cache)
    names = [f"car-{k:02d}" for k in range(1, vehicles + 1)]
    records = [one_round(number, rounds, names, truths, folder) for number in range(1, rounds + 1)]
    frames = [
        Frame(f"street-{k}", "made-up", f"domain-{k}", k, SIZE[1], SIZE[0],
              photo_picture(Image.fromarray(image_HWC)), ids_picture(truth_HW))
        for k, (image_HWC, truth_HW) in enumerate(zip(images, truths, strict=True))
    ]  # fmt: skip
    text = json.dumps({"frames": [asdict(frame) for frame in frames]})
    (folder / FOLDER / "frames.json").write_text(text)
    last = records[-1].scored
    assert last is not None
    own = {
        name: next(iter(last.conf_by_domain.values())) // (k + 1) for k, name in enumerate(names)
    }
    end = RunEnd("rounds", rounds, 1.0, last.with_clients(own, "held-out frames"), rounds, "f" * 64)
    lines = [record.to_dict() for record in records] + [{"event": "end", **end.to_dict()}]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text("{}")
    keep_counts(folder, split_up(sum(last.conf_by_domain.values()), rounds))
    record_resume(folder, rounds // 2)
    looks = [asdict(Look(name, 8, 0.4, (0.5, 0.4, 0.3))) for name in names]
    (folder / LOOKS).write_text(json.dumps(looks))
    told = [
        {"client": name, "images": 40, "pixels": 9, "histogram_C": row}
        for name, row in zip(names, counts(vehicles), strict=True)
    ]
    (folder / FILE).write_text(json.dumps(told))
    experiment = make_experiment({"name": "made-up", "federation": {"rounds": rounds}})
    (folder / "experiment.toml").write_text(to_toml(experiment))


def split_up(conf_CC: Conf_CC, rounds: int, frames: int = 600) -> ImageCounts:
    """Distribute the counts of a score over frames, each a block of its own for the bootstrap."""
    parts_3C = np.stack([np.diag(conf_CC), conf_CC.sum(axis=1), conf_CC.sum(axis=0)])
    parts_N3C = np.repeat((parts_3C // frames)[None], frames, axis=0)
    parts_N3C[0] += parts_3C % frames
    return ImageCounts(rounds, parts_N3C.astype(np.int64), np.arange(frames))


def counts(vehicles: int) -> list[list[int]]:
    """Draw pixel counts of each class for each vehicle."""
    generator = rng.generator(0, purpose="counts")
    return generator.integers(1, 9999, (vehicles, CAMVID_11.num_classes)).tolist()


def streets(cache: Path) -> tuple[Maps, Maps]:
    """Generate six streets."""
    config = SourceConfig(split="val", frames_per_drive=1)
    source = open_source(config)
    store = open_store(source, size_hw=SIZE, space=CAMVID_11, cache_dir=cache, native_labels=False)
    pairs = Picked((store,), tuple((0, k) for k in range(6)))
    both = [pairs[k] for k in range(len(pairs))]
    return [image_HWC for image_HWC, _ in both], [label_HW for _, label_HW in both]


def one_round(
    number: int, rounds: int, names: Sequence[str], truths: Maps, folder: Path
) -> RoundRecord:
    """Make up one round, and keep its predictions."""
    generator = rng.generator(0, round_=number, purpose="round")
    preds = [blotted(truth_HW, generator, number / rounds) for truth_HW in truths]
    seen = [
        Seen(ids_picture(p), wrong_share(t, p), mistakes(t, p, CAMVID_11))
        for t, p in zip(truths, preds, strict=True)
    ]
    fields = {"round": number, "frames": [asdict(each) for each in seen]}
    (folder / FOLDER / f"round-{number:06d}.json").write_text(json.dumps(fields))
    by_domain = {
        f"domain-{k}": confusion(t, p, CAMVID_11.num_classes)
        for k, (t, p) in enumerate(zip(truths, preds, strict=True))
    }
    protocol = Protocol(
        SIZE, "label resolution", CAMVID_11.name, CAMVID_11.classes, CAMVID_11.critical, 255,
        "running", "domain", (ScoredSet("made-up", 6, ""),), ("domain-0",),
        tuple(f"domain-{k}" for k in range(1, 6)), (number,),
    )  # fmt: skip
    scored = Scored(
        CAMVID_11, by_domain, ("made-up",), (), frozenset({"domain-0"}), protocol=protocol
    )
    bad = [name for name in names if generator.random() < 0.1]
    failures = tuple(Failure(name, "late", "deadline") for name in bad)
    return RoundRecord(
        number, tuple(names), tuple(n for n in names if n not in bad), failures, True,
        2.0 / number**0.5, 200, 10, 800, 90_000_000, 81_000_000, 10.0, scored,
    )  # fmt: skip


def blotted(
    truth_HW: npt.NDArray[np.uint8], generator: np.random.Generator, progress: float
) -> npt.NDArray[np.uint8]:
    """Return a prediction: the truth, shifted a little, with blobs of other classes."""
    pred_HW = np.roll(truth_HW, int(generator.integers(1, 4)), axis=1)
    pred_HW = np.where(pred_HW == 255, 3, pred_HW).astype(np.uint8)
    y_HW, x_HW = np.ogrid[: truth_HW.shape[0], : truth_HW.shape[1]]
    for _ in range(round(40 * (1 - 0.7 * progress))):
        y, x = generator.integers(0, truth_HW.shape[0]), generator.integers(0, truth_HW.shape[1])
        radius = generator.integers(4, 30)
        blob_HW = (y_HW - y) ** 2 + (x_HW - x) ** 2 < radius**2
        pred_HW[blob_HW] = generator.integers(0, CAMVID_11.num_classes)
    return pred_HW


if __name__ == "__main__":
    main()
