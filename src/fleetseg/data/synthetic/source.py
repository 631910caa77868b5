"""The synthetic source: painted drives through five invented cities in five conditions.

A sample holds a recipe, a line of text that fully determines the image; nothing is on disk.
A recipe has the form
`fleetseg-synthetic/<version> seed=.. split=.. city=.. condition=.. frame=.. size=<w>x<h>`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.synthetic.cities import CITIES
from fleetseg.data.synthetic.render import paint_frame
from fleetseg.data.synthetic.street import Drive
from fleetseg.data.synthetic.weather import CONDITIONS
from fleetseg.errors import BadSample, ConfigError, DataError, unknown_name

VERSION = 1
"""Version of the renderer, increased whenever the same recipe gives other pixels."""
SIZE_HW = (192, 256)
"""Native size of the samples, pixels."""
SPLITS = ("train", "val", "test")
_RECIPE = re.compile(
    r"fleetseg-synthetic/(?P<version>\d+) seed=(?P<seed>-?\d+) split=(?P<split>\w+)"
    r" city=(?P<city>\w+) condition=(?P<condition>\w+) frame=(?P<frame>\d+)"
    r" size=(?P<width>\d+)x(?P<height>\d+)"
)


def paint(
    seed: int, split: str, city: str, condition: str, frame: int, size_hw: tuple[int, int] = SIZE_HW
) -> tuple[Image_HWC, Label_HW]:
    """Paint one frame and its CamVid-11 labels; a pure function of its arguments.

    Raises:
        ConfigError: unknown split, city or condition, or a size below 32 x 32 pixels.
    """
    _check_names(split, (city,), (condition,))
    if min(size_hw) < 32:
        raise ConfigError(
            "picture too small", got=f"{size_hw} (height, width)", expected=">= 32 px"
        )
    painting = paint_frame(Drive(seed, split, city, condition), frame, size_hw)
    return painting.image_HWC, painting.label_HW


def open_synthetic(config: SourceConfig, size_hw: tuple[int, int] = SIZE_HW) -> Source:
    """Open the synthetic drives that a config selects; frames are painted at `size_hw` when read.

    Raises:
        ConfigError: unknown split, city or condition.
    """
    cities = config.cities or tuple(CITIES)
    conditions = config.conditions or tuple(CONDITIONS)
    _check_names(config.split, cities, conditions)
    samples = tuple(
        _sample(config, city, condition, frame, size_hw)
        for city in cities
        for condition in conditions
        for frame in range(config.frames_per_drive)
    )
    return Source("synthetic", CAMVID_11, samples, _read, _digest)


def write_dataset(
    source: Source, out: Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write a source as PNG files in the SegNet layout of CamVid; return the number of samples.

    `<split>/` holds images and `<split>annot/` label maps (train ids, 11 = void) of equal names.
    `progress` is called with (done, total).

    Raises:
        DataError: `out` is a file or a non-empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            "not an empty folder, so nothing is written", where=out, cure="Name a new folder."
        )
    void = CAMVID_11.num_classes
    for done, sample in enumerate(source.samples, start=1):
        image_HWC, label_HW = source.read(sample)
        assert label_HW is not None
        for folder in (sample.split, f"{sample.split}annot"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        name = f"{sample.sequence}_{sample.frame:04d}.png"  # CamVid's naming of drives
        Image.fromarray(image_HWC).save(out / sample.split / name)
        label_HW = label_HW.copy()
        label_HW[label_HW >= void] = void
        Image.fromarray(label_HW).save(out / f"{sample.split}annot" / name)
        if progress:
            progress(done, len(source.samples))
    return len(source.samples)


def _sample(
    config: SourceConfig, city: str, condition: str, frame: int, size_hw: tuple[int, int]
) -> Sample:
    drive = f"{city}-{condition}"
    height, width = size_hw
    recipe = (
        f"fleetseg-synthetic/{VERSION} seed={config.seed} split={config.split} city={city}"
        f" condition={condition} frame={frame} size={width}x{height}"
    )
    return Sample(
        id=f"synthetic/{config.split}/{drive}-{frame:04d}",
        dataset="synthetic",
        split=config.split,
        image=recipe,
        label=recipe,
        domain=drive,
        city=city,
        sequence=drive,
        frame=frame,
        condition=condition,
    )


def _read(sample: Sample) -> tuple[Image_HWC, Label_HW]:
    match = _RECIPE.fullmatch(sample.image)
    if match is None or int(match["version"]) != VERSION:
        raise BadSample(
            "not a recipe of this version of the synthetic source",
            where=sample.id,
            got=repr(sample.image),
            expected=f"fleetseg-synthetic/{VERSION} ...",
            cure="Open the synthetic source again instead of using an old manifest.",
        )
    size_hw = int(match["height"]), int(match["width"])
    return paint(
        int(match["seed"]), match["split"], match["city"], match["condition"],
        int(match["frame"]), size_hw,
    )  # fmt: skip


def _digest(sample: Sample) -> tuple[str, str]:
    """Return the SHA-256 of the recipe, which identifies the content: one recipe, one image."""
    return (
        hashlib.sha256(f"image {sample.image}".encode()).hexdigest(),
        hashlib.sha256(f"label {sample.label}".encode()).hexdigest() if sample.label else "",
    )


def _check_names(split: str, cities: tuple[str, ...], conditions: tuple[str, ...]) -> None:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    for city in cities:
        if city not in CITIES:
            raise unknown_name("city", city, CITIES)
    for condition in conditions:
        if condition not in CONDITIONS:
            raise unknown_name("condition", condition, CONDITIONS)
