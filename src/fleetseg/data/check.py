"""Inspect a data set: counts, class shares, domains, duplicates, every bad file.

Suffix: C = class.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.config import DataConfig, SourceConfig
from fleetseg.data.aspect import aspect_note
from fleetseg.data.labels import IGNORE
from fleetseg.data.remarks import (
    class_remarks,
    dark_remarks,
    one_bit_remarks,
    reason,
    several_remarks,
    turn_remarks,
)
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources import LAYOUTS, SPLITS
from fleetseg.data.sources.headers import Header, read_header
from fleetseg.data.sources.indexing import require_folder, wrong_layout
from fleetseg.data.sources.walking import on_disk, subfolders
from fleetseg.errors import BadSample
from fleetseg.text import listing, size_text

Digests = tuple[str, str]  # SHA-256 of an image and of its label
_LISTED = 10  # faults listed of each kind


@dataclass(frozen=True, slots=True)
class Bad:
    """One unusable sample: the file at fault, what is wrong with it, and the cure."""

    sample: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Samples with byte-identical images; `same_label` says whether their labels are equal too."""

    samples: tuple[str, ...]
    same_label: bool


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What `check` found; counts are of samples unless the name says pixels."""

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
    notes: tuple[str, ...]  # what is legal but rarely intended
    images: dict[str, str]  # SHA-256 of each good image -> its file

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values, with pixel counts keyed by class name."""
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "images"}
        fields["pixels"] = dict(zip(self.classes, fields.pop("pixels_C").tolist(), strict=True))
        fields["classes"] = list(self.classes)
        fields["notes"] = list(self.notes)
        fields["bad"] = [{"sample": b.sample, "file": b.file, "text": b.text} for b in self.bad]
        fields["duplicates"] = [
            {"samples": list(d.samples), "same_label": d.same_label} for d in self.duplicates
        ]
        return fields


def check(source: Source, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Read every sample of a source once; bad samples are listed, not raised.

    Args:
        source: an opened data set.
        progress: called after each sample with (done, total).
    """
    seen = _Seen()
    for done, sample in enumerate(source.samples, start=1):
        header = seen.look_at(sample)
        try:
            image_HWC, label_HW = source.read(sample)
            digests = source.digest(sample)
        except BadSample as error:
            seen.bad.append(_bad(sample, error))
        else:
            (seen.brightest_deep if header.deep else seen.brightest).append(int(image_HWC.max()))
            seen.add(sample, image_HWC, label_HW, digests)
        if progress is not None:
            progress(done, len(source.samples))
    return CheckReport(
        name=source.name,
        space=source.space.name,
        classes=source.space.classes,
        splits=_counts(source, "split"),
        domains=_counts(source, "domain"),
        sequences=_counts(source, "sequence"),
        sizes=dict(seen.sizes.most_common()),
        num_samples=len(source.samples),
        num_labelled=seen.num_labelled,
        num_unlabelled=len(source.samples) - len(seen.bad) - seen.num_labelled,
        pixels_C=seen.pixels[: source.space.num_classes],
        void_pixels=int(seen.pixels[IGNORE]),
        bad=tuple(seen.bad),
        duplicates=_duplicates(seen.twins),
        notes=(*source.notes, *seen.notes(source)),
        images={image: twins[0][0].image for image, twins in seen.twins.items()},
    )


@dataclass
class _Seen:
    """Running totals over the samples read so far."""

    pixels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    sizes: Counter[str] = field(default_factory=Counter)
    num_labelled: int = 0
    bad: list[Bad] = field(default_factory=list)
    # Image digest -> the samples with that image, each with the digest of its label.
    twins: dict[str, list[tuple[Sample, str]]] = field(default_factory=dict)
    brightest: list[int] = field(default_factory=list)
    brightest_deep: list[int] = field(default_factory=list)  # of 16-bit files
    turns: Counter[str] = field(default_factory=Counter)
    turned_labels: int = 0
    one_bit_labels: int = 0
    several: int = 0  # images in files of several pages or frames

    def look_at(self, sample: Sample) -> Header:
        """Count what the sample's file headers say, and return the image's header."""
        image, label = read_header(sample.image), read_header(sample.label or "")
        self.turns[image.turn] += 1
        self.turned_labels += bool(label.turn)
        self.one_bit_labels += label.one_bit
        self.several += image.several
        return image

    def add(
        self, sample: Sample, image_HWC: Image_HWC, label_HW: Label_HW | None, digests: Digests
    ) -> None:
        """Count a good sample."""
        self.sizes[f"{image_HWC.shape[1]}x{image_HWC.shape[0]}"] += 1
        self.twins.setdefault(digests[0], []).append((sample, digests[1]))
        if label_HW is not None:
            self.num_labelled += 1
            self.pixels += np.bincount(label_HW.ravel(), minlength=256)

    def notes(self, source: Source) -> list[str]:
        """Return the notes that concern the source as a whole."""
        code = source.read.keywords.get("code") if isinstance(source.read, partial) else None
        own, pixels_C = code is not None and not code.cure, self.pixels[: source.space.num_classes]
        total, classes = sum(self.sizes.values()), source.space.classes
        num_samples = len(source.samples)
        return [
            *class_remarks(classes, pixels_C, int(self.pixels[IGNORE]), own=own),
            *(one_bit_remarks(self.one_bit_labels, classes, code.table[:2]) if code else ()),
            *dark_remarks(self.brightest, self.brightest_deep, total, own=own),
            *several_remarks(self.several, num_samples),
            *turn_remarks(self.turns, self.turned_labels, num_samples),
        ]


def report_lines(report: CheckReport, cache_dir: Path | None = None) -> list[str]:
    """Return the report as plain lines of text; only the first faults of each kind are listed.

    Class shares are of the labelled pixels without void; void's share is of all pixels. Given
    `cache_dir`, the folder of decoded samples, a line says how much space a run would need there.
    """
    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items())
    lines = [
        f"{report.name} ({splits}): {report.num_samples} samples, {report.num_labelled} labelled, "
        f"{report.num_unlabelled} unlabelled, {len(report.bad)} bad; label space {report.space}",
        "image sizes (width x height): " + _listing(report.sizes),
        f"{len(report.domains)} domains: " + _listing(report.domains),
        f"{len(report.sequences)} drives: " + _listing(report.sequences, limit=12),
    ]
    if cache_dir is not None and report.sizes:
        lines.append(_room_line(report, cache_dir))
    if report.num_labelled:
        lines += ["class pixels (share of labelled pixels, void left out):", *_class_lines(report)]
    lines += [f"note: {note}" for note in (*report.notes, *_aspect_notes(report))]
    lines += [_twins_line(duplicate) for duplicate in report.duplicates[:_LISTED]]
    if len(report.duplicates) > _LISTED:
        lines.append(f"and {len(report.duplicates) - _LISTED:,} more images that occur repeatedly")
    return lines + _bad_lines(report.bad)


def shared_images(reports: Sequence[CheckReport]) -> list[str]:
    """Report images in two splits: a run that trains on one and scores on the other leaks.

    Args:
        reports: of splits of one data set.
    """
    lines = []
    for one, other in itertools.combinations(reports, 2):
        both = [i for i in one.images if i in other.images and one.images[i] != other.images[i]]
        if both:
            names = " and ".join("/".join((r.name, *r.splits)) for r in (one, other))
            example = f"{one.images[both[0]]} is {other.images[both[0]]}"
            lines.append(
                f"{len(both)} images are in both {names}, e.g. {example}: a run that trains on one "
                "split and is scored on the other is refused"
            )
    return lines


def shared_sequences(reports: Sequence[CheckReport]) -> list[str]:
    """Report drives in two splits: legal, but scores on their frames are optimistic.

    Args:
        reports: of splits of one data set.
    """
    lines = []
    for one, other in itertools.combinations(reports, 2):
        if both := sorted({*one.sequences} & {*other.sequences} - {""}):
            names = " and ".join("/".join((r.name, *r.splits)) for r in (one, other))
            drives = f"drive {both[0]} is" if len(both) == 1 else f"drives {listing(both)} are"
            lines.append(
                f"note: {drives} in {names}: a model that is trained on one and scored on the "
                "other has already seen the road, so its scores are optimistic"
            )
    return lines


def detect(path: Path) -> list[SourceConfig]:
    """Guess which data sets, and which of their splits, lie in a folder or just below it.

    Raises:
        DataError: the folder does not exist or holds no known data set; lists the layouts tried.
    """
    require_folder(path)
    found = _detect_here(path) or [
        config for name in subfolders(path) for config in _detect_here(on_disk(path / name))
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


def _room_line(report: CheckReport, cache_dir: Path) -> str:
    """State the size of the decoded samples: 3 bytes per pixel for images, one for labels."""
    num_good, (height, width) = sum(report.sizes.values()), DataConfig().size
    own_pixels = sum(hw[0] * hw[1] * count for hw, count in _sizes_hw(report).items())
    per_pixel = 3 + report.num_labelled / num_good
    default, own = (size_text(n * per_pixel) for n in (height * width * num_good, own_pixels))
    return (
        f"decoded for a run: about {default} at the default data.size [{height}, {width}], {own} "
        f"at the images' own size, in {cache_dir}"
    )


def _sizes_hw(report: CheckReport) -> dict[tuple[int, int], int]:
    counts = {}
    for size, count in report.sizes.items():
        width, height = size.split("x")
        counts[int(height), int(width)] = count
    return counts


def _aspect_notes(report: CheckReport) -> list[str]:
    size_hw = DataConfig().size
    note = aspect_note(report.name, _sizes_hw(report), size_hw, "the default data.size")
    return [] if note is None else [note]


def _bad(sample: Sample, error: BadSample) -> Bad:
    file = error.where or sample.image
    return Bad(sample.id, file, str(error).removeprefix(f"{file}: "))


def _counts(source: Source, fact: str) -> dict[str, int]:
    return dict(sorted(Counter(getattr(sample, fact) for sample in source.samples).items()))


def _duplicates(twins_of: dict[str, list[tuple[Sample, str]]]) -> tuple[Duplicate, ...]:
    return tuple(
        Duplicate(tuple(s.id for s, _ in twins), len({label for _, label in twins}) == 1)
        for twins in twins_of.values()
        if len(twins) > 1
    )


def _twins_line(duplicate: Duplicate) -> str:
    which = "same label" if duplicate.same_label else "DIFFERENT labels"
    return f"same image, {which}: {listing(list(duplicate.samples), 8)}"


def _bad_lines(bad: Sequence[Bad]) -> list[str]:
    """List bad samples by fault: the first of each kind, and how many more there are."""
    alike: dict[str, list[Bad]] = {}
    for each in bad:
        alike.setdefault(reason(each.text), []).append(each)
    lines = []
    for what, those in alike.items():
        lines += [f"bad: {each.sample}: {each.file}: {each.text}" for each in those[:_LISTED]]
        if len(those) > _LISTED:
            lines.append(f"bad: {len(those) - _LISTED:,} more samples: {what}")
    return lines


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
    return listing(items, limit) or "none"
