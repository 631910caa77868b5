"""Costs and gains of a decoded store: bytes per image, seconds to build, images read per second.

    FLEETSEG_DATA=data python benchmarks/store.py

The same samples are opened twice: decoded into the cache, and left in their files. Reading copies
every pixel of image and label, as making a batch does; everything is in the page cache. Cityscapes
may not be redistributed, so CamVid's frames enlarged to its size stand in for it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import fleetseg
from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source
from fleetseg.data.store.cache import open_stores
from fleetseg.data.store.packing import pack, unpack
from fleetseg.data.store.store import Store
from fleetseg.experiment_file import make_experiment

LARGE_HW = (1024, 2048)
REPEATS = 5


@dataclass(frozen=True)
class Figures:
    """Figures of one kind of store, per image."""

    build_s: float
    image_bytes: float
    label_bytes: float  # to train on, at the working size
    scored_bytes: float  # at their own size
    per_s: tuple[float, float]  # images read a second with one thread and with two


def enlarged(source: Source, folder: Path) -> Source:
    """Write the frames of a source at Cityscapes' size, as PNG like the published files."""
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True)
    (folder / "classes.toml").write_text(f'space = "{source.space.name}"\n')
    size = LARGE_HW[1], LARGE_HW[0]
    for sample in source.samples:
        image_HWC, label_HW = source.read(sample)
        assert label_HW is not None
        name = f"{sample.id.rpartition('/')[2]}.png"
        image = Image.fromarray(image_HWC).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / "images" / name)
        label = Image.fromarray(label_HW).resize(size, Image.Resampling.NEAREST)
        label.save(folder / "masks" / name)
    return open_source(SourceConfig(kind="folder", root=str(folder)))


def measure(source: Source, size_hw: tuple[int, int], cache: Path, *, from_files: bool) -> Figures:
    """Build a store with labels to train on and to score on, and read it."""
    started_s = time.perf_counter()
    train, scored = open_stores(
        source,
        size_hw=size_hw,
        space=CAMVID_11,
        cache_dir=cache,
        native_labels=(False, True),
        from_files=from_files,
    )
    build_s = time.perf_counter() - started_s
    assert not train.bad, train.bad
    parts = train.images / "images.u8", train.labels / "labels.u8", scored.labels / "labels.u8"
    sizes = [part.stat().st_size / len(train) for part in parts]
    return Figures(build_s, *sizes, per_s=(read(train, 1), read(train, 2)))


def read(store: Store, num_threads: int) -> float:
    """Copy every sample; returns images per second."""

    def copy(index: int) -> int:
        image_HWC, label_HW = store.pair(index)
        return int(image_HWC.copy()[0, 0, 0]) + int(label_HW.copy()[0, 0])

    with ThreadPoolExecutor(num_threads) as pool:
        seconds = best_s(lambda: list(pool.map(copy, range(len(store)))))
    return len(store) / seconds


def best_s(work: Callable[[], object]) -> float:
    """Least seconds that something takes, after a warm-up: other programs only add time."""
    work()
    times = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - started_s)
    return min(times)


def label_packing(source: Source, size_hw: tuple[int, int], cache: Path) -> str:
    """Compare packed and unpacked labels, on one thread."""
    (store,) = open_stores(
        source, size_hw=size_hw, space=CAMVID_11, cache_dir=cache, native_labels=(False,)
    )
    labels = [store.pair(i)[1] for i in range(len(store))]
    open_s = best_s(lambda: [label_HW.copy() for label_HW in labels])
    pack_s = best_s(lambda: [pack(label_HW) for label_HW in labels])
    packed = [pack(label_HW) for label_HW in labels]
    unpack_s = best_s(lambda: [unpack(p, size_hw, cache) for p in packed])
    before, after = (sum(part.nbytes for part in parts) / len(labels) for parts in (labels, packed))
    each_ms = [seconds / len(labels) * 1000 for seconds in (open_s, pack_s, unpack_s)]
    return (
        f"  labels: {before / 1000:.0f} kB unpacked, {after / 1000:.1f} kB packed "
        f"({before / after:.0f} times smaller); copied in {each_ms[0]:.3f} ms, packed in "
        f"{each_ms[1]:.2f} ms, unpacked in {each_ms[2]:.2f} ms"
    )


def show(title: str, source: Source, size_hw: tuple[int, int]) -> None:
    """Measure both kinds at one size and print a row each."""
    files = np.mean([os.path.getsize(sample.image) for sample in source.samples])
    print(f"{title}: {len(source.samples)} images at {size_hw[0]} x {size_hw[1]}, ", end="")
    print(f"files of {files / 1000:.0f} kB")
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"decoded": False, "files": True}
        found = {
            name: measure(source, size_hw, Path(folder) / name, from_files=from_files)
            for name, from_files in kinds.items()
        }
        for name, figures in found.items():
            print(f"  {name:8}{_row(figures)}")
        pairs = zip(found["decoded"].per_s, found["files"].per_s, strict=True)
        ratios = [decoded / from_files for decoded, from_files in pairs]
        one, two = ratios
        print(f"  decoded relative to files: {one:.1f} x with 1 thread, {two:.1f} x with 2")
        print(label_packing(source, size_hw, Path(folder) / "decoded"), flush=True)


def _row(figures: Figures) -> str:
    sizes = figures.image_bytes, figures.label_bytes, figures.scored_bytes
    image, label, scored = (size / 1000 for size in sizes)
    return (
        f"{image:8.0f} kB image {label:6.1f} kB training label {scored:6.1f} kB scoring label "
        f"{figures.build_s:7.2f} s {figures.per_s[0]:8.0f} images/s "
        f"{figures.per_s[1]:8.0f} with 2 threads"
    )


def training(config: SourceConfig, store: str, folder: Path) -> float:
    """Images per second that one vehicle trains on, with the default network on one thread."""
    fields = {
        "data": {
            "size": [360, 480],
            "cache": str(folder / store),
            "store": store,
            "sources": [config.model_dump()],
        },
        "partition": {"kind": "iid", "clients": 1},
        "federation": {"rounds": 3},
        "engine": {"kind": "inprocess", "device": "cpu"},
        "evaluation": {"every": 0},
    }
    run = fleetseg.run(make_experiment(fields), out=folder / f"run-{store}")
    return config.limit / min(record.seconds for record in run.records)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both kinds of store for CamVid and for frames of Cityscapes' size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=0, help="number of CamVid images, 0 = all")
    parser.add_argument("--large", type=int, default=32, help="number of enlarged images")
    options = parser.parse_args(arguments)
    root = Path(os.environ.get("FLEETSEG_DATA", "data"))
    config = SourceConfig(kind="camvid", root=str(root / "camvid"), limit=options.limit)
    camvid = open_source(config)
    print(f"fleetseg {fleetseg.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        few = config.model_copy(update={"limit": 48})
        rates = [training(few, store, Path(folder)) for store in ("decoded", "files")]
        print(f"training at 360 x 480: {rates[0]:.1f} images/s decoded, {rates[1]:.1f} from files")
    show("CamVid", camvid, (360, 480))
    with tempfile.TemporaryDirectory() as folder:
        few = open_source(config.model_copy(update={"limit": options.large}))
        large = enlarged(replace(few, space=camvid.space), Path(folder) / "large")
        for size_hw in ((512, 1024), LARGE_HW):
            show("CamVid enlarged to 1024 x 2048", large, size_hw)


if __name__ == "__main__":
    main()
