"""Banks of norm statistics for a finished model, one per condition of the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from fleetseg.config import SourceConfig
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC, Sample, Source
from fleetseg.data.sources import open_source
from fleetseg.data.store.decoding import resized_image
from fleetseg.data.synthetic.source import open_synthetic
from fleetseg.errors import BadSample, ConfigError, DataError
from fleetseg.evaluation.predict import evaluating, forward
from fleetseg.learning.batches import batches_per_epoch
from fleetseg.models.conditions import ConditionClassifier, Floats, fit_conditions, image_facts
from fleetseg.models.norm_banks import NormBanks, save_norm_banks
from fleetseg.models.norm_statistics import Statistics, batch_norms, gather, statistics_of
from fleetseg.runs.inference import ReadyModel, ready_model

BY = ("condition", "city", "sequence", "domain", "weather")
"""What banks are grouped by: a fact of each sample, or the weather recognised in the image."""
_PAINTED, _PAINTED_HW = 8, (96, 128)  # frames of each city in each weather, and their size
_FEWEST = 8  # frames of a weather for a bank: from fewer, statistics are unreliable


def fill_norm_banks(
    model: Path,
    frames: SourceConfig,
    *,
    by: str = "condition",
    batch_size: int = 8,
    device: str = "auto",
    progress: Progress | None = None,
) -> NormBanks:
    """Fill banks from frames, one for each condition, and write them into the model's folder.

    The frames' labels are not used. Statistics are those of all values together, each layer's input
    normalised with the statistics of its own batch, as with `federation.statistics = "estimated"`.

    Args:
        model: a run folder or a model folder.
        frames: the frames' data set; synthetic frames state their condition.
        by: condition, city, sequence or domain, to which the classifier is fitted as well; or
            weather, as recognised by a classifier that is fitted on synthetic frames.
        batch_size: images at a time.
        device: auto, cpu, cuda or mps.
        progress: called after each image.

    Raises:
        ModelError: there is no model.
        ConfigError: the network has no batch norms; some frames do not state their condition.
        DataError: fewer than two conditions, or one without a usable frame.
    """
    ready = ready_model(model, device, "fp32", norms=None)
    if not batch_norms(ready.segmenter):
        raise ConfigError("the network has no batch norms to fill banks for", where=model)
    source, size_hw = open_source(frames), ready.size_hw
    groups, classifier = _grouped(source, by, size_hw, progress)
    done = _Counter(progress, sum(map(len, groups.values())))
    facts = {name: list[Floats]() for name in groups}
    with ready.on_device(), evaluating(ready.segmenter):
        statistics = {
            name: _estimated(ready, _batches(source, own, size_hw, batch_size, done), facts[name])
            for name, own in groups.items()
        }
    images = {name: len(found) for name, found in facts.items()}
    filled_from = f"{source.name}/{frames.split} by {by}"
    banks = NormBanks(classifier or fit_conditions(facts), statistics, images, filled_from)
    save_norm_banks(banks, model)
    return banks


def _grouped(
    source: Source, by: str, size_hw: tuple[int, int], progress: Progress | None
) -> tuple[dict[str, list[Sample]], ConditionClassifier | None]:
    if by not in BY:
        raise ConfigError("unknown grouping of banks", got=by, expected=f"one of: {', '.join(BY)}")
    if by == "weather":
        return _by_weather(source, size_hw, progress)
    return _by_fact(source, by), None


def _by_fact(source: Source, by: str) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in source.samples:
        groups.setdefault(str(getattr(sample, by)), []).append(sample)
    if "" in groups:
        raise ConfigError(
            f"{len(groups['']):,} of {len(source.samples):,} frames do not say their {by}",
            where=source.name,
            cure="Fill banks by weather, which is recognised from pixels, or by something else",
        )
    return dict(sorted(groups.items()))


def _by_weather(
    source: Source, size_hw: tuple[int, int], progress: Progress | None
) -> tuple[dict[str, list[Sample]], ConditionClassifier]:
    """Group frames by the weather that a classifier fitted on synthetic weather recognises."""
    painted = open_synthetic(SourceConfig(frames_per_drive=_PAINTED), _PAINTED_HW)
    facts: dict[str, list[Floats]] = {}
    shown = _Counter(progress, len(painted.samples), "painted frames")
    for sample in painted.samples:
        facts.setdefault(sample.condition, []).append(image_facts(painted.read(sample)[0]))
        shown()
    classifier, groups = fit_conditions(facts), dict[str, list[Sample]]()
    for sample in source.samples:
        for image_HWC in _read([sample], source, size_hw):
            groups.setdefault(classifier.choose(image_HWC), []).append(sample)
    large = {name: found for name, found in sorted(groups.items()) if len(found) >= _FEWEST}
    if len(large) < 2:
        raise DataError(
            "all frames seem to show one weather",
            where=source.name,
            got=", ".join(f"{name}: {len(found)}" for name, found in sorted(groups.items())),
            expected=f"two or more with {_FEWEST} frames each",
        )
    return large, classifier.among(large)


class _Counter:
    """Reports the number of finished images."""

    def __init__(self, progress: Progress | None, total: int, what: str = "frames") -> None:
        self._progress, self._total, self._what, self._done = progress, total, what, 0

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)


def _batches(
    source: Source,
    samples: Sequence[Sample],
    size_hw: tuple[int, int],
    batch_size: int,
    done: Callable[[], None],
) -> Iterator[list[Image_HWC]]:
    """Yield usable images in order, in batches of sizes as equal as possible; skip the others."""
    count = batches_per_epoch(len(samples), batch_size)
    for part in np.array_split(np.arange(len(samples)), count):
        images = _read([samples[int(number)] for number in part], source, size_hw, done)
        if images:
            yield images


def _read(
    samples: Sequence[Sample],
    source: Source,
    size_hw: tuple[int, int],
    done: Callable[[], None] = lambda: None,
) -> list[Image_HWC]:
    """Read the usable images at the working size."""
    images: list[Image_HWC] = []
    for sample in samples:
        with suppress(BadSample):
            images.append(resized_image(source.read(sample)[0], size_hw))
        done()
    return images


def _estimated(
    ready: ReadyModel, batches: Iterator[list[Image_HWC]], facts: list[Floats]
) -> dict[str, Statistics]:
    """Estimate the statistics of a model's batch norms, and collect the facts of every image."""

    def look(images: list[Image_HWC]) -> None:
        facts.extend(map(image_facts, images))
        forward(
            ready.segmenter,
            np.stack(images),
            device=ready.hardware.device,
            context=ready.hardware.inference,
        )

    sums = gather(ready.segmenter, (partial(look, images) for images in batches), lone=True)
    if not facts:
        raise DataError("no usable frame of a condition: see fleetseg data check")
    return statistics_of(ready.segmenter, sums)
