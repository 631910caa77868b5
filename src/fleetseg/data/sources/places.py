"""Where the images and labels of a split lie; a published data set is a few such places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources.indexing import check_not_empty, ordered, pair, stems
from fleetseg.data.sources.reading import digest
from fleetseg.text import composed

Read = Callable[[Sample], tuple[Image_HWC, Label_HW | None]]


@dataclass(frozen=True)
class Place:
    """A folder of images, the folder of their labels, and the endings of their file names.

    `labels` is None if none are published. If the folder is missing, the images are unlabelled and
    a note says so. Of several label endings, the first that exists is used.
    """

    images: Path
    labels: Path | None = None
    image_ending: str = ""
    label_endings: tuple[str, ...] = ("",)
    image_suffix: str = ".png"  # of a missing file, for the error
    prefix: str = ""  # of the stems of these images, if a split lies in several places
    partly: bool = False  # an image without a label is unlabelled, not a bad sample
    renamed: tuple[str, str] = ("", "")  # a word in image names, and its replacement in label names


@dataclass(frozen=True)
class Facts:
    """What a file's name and folders say about a sample."""

    domain: str
    city: str = ""
    sequence: str = ""
    frame: int = 0
    condition: str = ""
    vehicle: str = ""


def published_source(
    kind: str,
    space: LabelSpace,
    split: str,
    places: Iterable[Place],
    facts_of: Callable[[str], Facts],
    read: Read,
    notes: tuple[str, ...] = (),
) -> Source:
    """Index all images and labels of a split.

    Args:
        kind: name of the data set.
        space: label space of the labels.
        split: name of the split, which becomes part of each sample's id.
        places: where the files lie; at least one.
        facts_of: stem, including the prefix of its place -> what is known about the sample.
        read: how to read a sample.
        notes: what `data check` should report.

    Raises:
        DataError: there are no pictures.
    """
    split = composed(split)
    samples: list[Sample] = []
    folders: list[Path] = []
    absent: list[Path] = []
    for place in places:
        folders.append(place.images)
        if place.labels is not None and not place.labels.is_dir():
            absent.append(place.labels)
        for stem, image, label in _pairs(place):
            name = place.prefix + stem
            samples.append(_sample(kind, split, name, image, label, facts_of(name)))
    check_not_empty(samples, folders[0])
    notes += tuple(f"there is no folder {path}: its images are unlabelled" for path in absent)
    return Source(kind, space, ordered(samples), read, digest, notes)


def _pairs(place: Place) -> list[tuple[str, str, str | None]]:
    images = stems(place.images, place.image_ending)
    labels = _labels(place)
    if labels is not None and place.partly:
        return [(stem, path, labels.get(stem)) for stem, path in sorted(images.items())]
    return pair(
        images,
        labels,
        image_at=lambda s: place.images / f"{s}{place.image_ending}{place.image_suffix}",
        label_at=lambda stem: _label_at(place, stem),
    )


def _labels(place: Place) -> dict[str, str] | None:
    """Map image stems to label files."""
    if place.labels is None or not place.labels.is_dir():
        return None
    found: dict[str, str] = {}
    for ending in reversed(place.label_endings):
        found |= stems(place.labels, ending)
    of_image, of_label = place.renamed
    return {stem.replace(of_label, of_image): path for stem, path in found.items()}


def _label_at(place: Place, stem: str) -> Path:
    assert place.labels is not None, "asked for only where there are labels"
    return place.labels / f"{stem.replace(*place.renamed)}{place.label_endings[0]}.png"


def _sample(
    kind: str, split: str, stem: str, image: str, label: str | None, facts: Facts
) -> Sample:
    return Sample(
        id=f"{kind}/{split}/{stem}",
        dataset=kind,
        split=split,
        image=image,
        label=label,
        domain=facts.domain,
        city=facts.city,
        sequence=facts.sequence,
        frame=facts.frame,
        condition=facts.condition,
        vehicle=facts.vehicle,
    )
