"""Looking a data set over: counts, class shares, domains, duplicates, every bad file.

Suffix: C = class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.config import DataConfig, SourceConfig
from fleetseg.data.aspect import aspect_note
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import LAYOUTS, SPLITS
from fleetseg.data.sources.indexing import subfolders, wrong_layout
from fleetseg.errors import BadSample, DataError


@dataclass(frozen=True, slots=True)
class Bad:
    """One sample that cannot be used: the file at fault, and what is wrong with the cure."""

    sample: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Samples whose images are the same bytes; `same_label` tells whether their labels are too."""

    samples: tuple[str, ...]
    same_label: bool


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What `check` found; counts are of samples unless they say pixels."""

    name: str
    space: str
    classes: tuple[str, ...]
    splits: dict[str, int]
    domains: dict[str, int]
    sequences: dict[str, int]
    sizes: dict[str, int]  # "width x height" of the good images
    num_samples: int
    num_labelled: int  # good and with a label
    num_unlabelled: int  # good, without a label
    pixels_C: npt.NDArray[np.int64]  # of the good labels, per class
    void_pixels: int  # of the good labels
    bad: tuple[Bad, ...]
    duplicates: tuple[Duplicate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; class pixels by class name."""
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__}
        fields["pixels"] = dict(zip(self.classes, fields.pop("pixels_C").tolist(), strict=True))
        fields["classes"] = list(self.classes)
        fields["bad"] = [{"sample": b.sample, "file": b.file, "text": b.text} for b in self.bad]
        fields["duplicates"] = [
            {"samples": list(d.samples), "same_label": d.same_label} for d in self.duplicates
        ]
        return fields


def check(source: Source, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Read every sample of a source once; bad ones are listed, never raised.

    Args:
        source: an opened data set.
        progress: called after each sample with (done, total).
    """
    pixels = np.zeros(256, dtype=np.int64)
    sizes: Counter[str] = Counter()
    num_labelled = 0
    bad: list[Bad] = []
    seen: dict[str, list[tuple[str, str]]] = {}  # image digest -> (sample id, label digest)
    for done, sample in enumerate(source.samples, start=1):
        try:
            image_HWC, label_HW = source.read(sample)
            image_digest, label_digest = source.digest(sample)
        except BadSample as error:
            bad.append(_bad(sample, error))
        else:
            sizes[f"{image_HWC.shape[1]}x{image_HWC.shape[0]}"] += 1
            if label_HW is not None:
                num_labelled += 1
                pixels += np.bincount(label_HW.ravel(), minlength=256)
            seen.setdefault(image_digest, []).append((sample.id, label_digest))
        if progress is not None:
            progress(done, len(source.samples))
    return CheckReport(
        name=source.name,
        space=source.space.name,
        classes=source.space.classes,
        splits=_counts(source, "split"),
        domains=_counts(source, "domain"),
        sequences=_counts(source, "sequence"),
        sizes=dict(sizes.most_common()),
        num_samples=len(source.samples),
        num_labelled=num_labelled,
        num_unlabelled=len(source.samples) - len(bad) - num_labelled,
        pixels_C=pixels[: source.space.num_classes],
        void_pixels=int(pixels[IGNORE]),
        bad=tuple(bad),
        duplicates=_duplicates(seen),
    )


def report_lines(report: CheckReport) -> list[str]:
    """Return the report as plain lines of text; everything is listed, nothing shortened but drives.

    Class shares are of the labelled pixels without void, void's is of all pixels.
    """
    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items())
    lines = [
        f"{report.name} ({splits}): {report.num_samples} samples, {report.num_labelled} labelled, "
        f"{report.num_unlabelled} unlabelled, {len(report.bad)} bad; label space {report.space}",
        "image sizes (width x height): " + _listing(report.sizes),
        f"{len(report.domains)} domains: " + _listing(report.domains),
        f"{len(report.sequences)} drives: " + _listing(report.sequences, limit=12),
    ]
    if report.num_labelled:
        lines += ["class pixels (share of labelled pixels, void left out):", *_class_lines(report)]
    for duplicate in report.duplicates:
        which = "same label" if duplicate.same_label else "DIFFERENT labels"
        lines.append(f"same image, {which}: " + ", ".join(duplicate.samples))
    lines += [f"note: {note}" for note in _aspect_notes(report)]
    lines += [f"bad: {bad.sample}: {bad.file}: {bad.text}" for bad in report.bad]
    return lines


def detect(path: Path) -> list[SourceConfig]:
    """Guess which data sets, and which splits of them, lie at a folder or just below it.

    Raises:
        DataError: there is no such folder, or nothing known in it; tells what was looked for.
    """
    if not path.is_dir():
        raise DataError("folder not found", where=path)
    found = _detect_here(path) or [
        config for name in subfolders(path) for config in _detect_here(path / name)
    ]
    if not found:
        looked_for = [f"{layout} [{kind}]" for kind in LAYOUTS for layout in LAYOUTS[kind]]
        raise wrong_layout(path, "no known data set", looked_for)
    return found


def _detect_here(path: Path) -> list[SourceConfig]:
    for kind, splits in SPLITS.items():
        if found := splits(path):
            return [SourceConfig(kind=kind, root=str(path), split=split) for split in found]
    return []


def _aspect_notes(report: CheckReport) -> list[str]:
    counts = {}
    for size, count in report.sizes.items():
        width, height = size.split("x")
        counts[int(height), int(width)] = count
    note = aspect_note(report.name, counts, DataConfig().size, "the default data.size")
    return [] if note is None else [note]


def _bad(sample: Sample, error: BadSample) -> Bad:
    file = error.where or sample.image
    return Bad(sample.id, file, str(error).removeprefix(f"{file}: "))


def _counts(source: Source, fact: str) -> dict[str, int]:
    return dict(sorted(Counter(getattr(sample, fact) for sample in source.samples).items()))


def _duplicates(seen: dict[str, list[tuple[str, str]]]) -> tuple[Duplicate, ...]:
    return tuple(
        Duplicate(tuple(name for name, _ in twins), len({label for _, label in twins}) == 1)
        for twins in seen.values()
        if len(twins) > 1
    )


def _class_lines(report: CheckReport) -> list[str]:
    total = max(int(report.pixels_C.sum()), 1)
    width = max(len("void"), *(len(name) for name in report.classes))
    lines = [
        f"  {i:>3} {name:<{width}} {n / total:7.2%} {n:>15,}"
        for i, (name, n) in enumerate(zip(report.classes, report.pixels_C.tolist(), strict=True))
    ]
    share = report.void_pixels / (total + report.void_pixels)
    return [*lines, f"      {'void':<{width}} {share:7.2%} {report.void_pixels:>13,} of all pixels"]


def _listing(counts: dict[str, int], limit: int = 1000) -> str:
    items = [f"{name} {count}" for name, count in counts.items()]
    rest = len(items) - limit
    return (", ".join(items[:limit]) or "none") + (f" and {rest} more" if rest > 0 else "")
