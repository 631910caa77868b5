"""Explain why samples of a fleet are unusable: what is wrong, and with how many of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import LabelSpace
from fleetseg.data.partition.label_subset import LabelSubsets
from fleetseg.data.remarks import class_remarks, reason
from fleetseg.data.sample import Sample
from fleetseg.data.store.store import Store
from fleetseg.errors import DataError
from fleetseg.text import listing


def no_usable_sample(name: str, store: Store, purpose: str = "evaluate on") -> DataError:
    """Build the error for a data set without a single good label, with the reason."""
    return DataError(
        f"no usable labelled sample to {purpose}",
        where=name,
        got=why_unusable(store.samples, store.bad),
        cure=common_cure(store.samples, store.bad) or "Use a split that has labels, such as val",
    )


def nobody_takes_part(abstains: Sequence[str], stores: Sequence[Store]) -> DataError:
    """Build the error for a fleet in which every client abstains, given each client's reason."""
    reasons = [text for text, _ in Counter(abstains).most_common(3)]
    why = [why_unusable(store.samples, store.bad) for store in stores]
    cures = [common_cure(store.samples, store.bad) for store in stores]
    if any(sample.label is None for store in stores for sample in store.samples):
        cures.append("Use a split that has labels, or a training.supervision that needs none")
    return DataError(
        "no client can take part",
        got="; ".join([*reasons, *filter(None, why)]) or "no client",
        cure=next(filter(None, cures), None),
    )


def unseen_classes(
    stores: Sequence[Store], trained: Sequence[tuple[int, int]], space: LabelSpace
) -> list[str]:
    """Note classes that occur in no training sample.

    Args:
        stores: of the training data.
        trained: (store, index in it) of each good sample to train on.
        space: label space of the samples.
    """
    pixels_C, pixels = np.zeros(space.num_classes, dtype=np.int64), 0
    for store, index in trained:
        pixels_C += stores[store].histograms_NC[index]
        pixels += math.prod(stores[store].label_hw(index))
    void = pixels - int(pixels_C.sum())
    remarks = class_remarks(space.classes, pixels_C, void, own=False)
    return [f"in the training data, {remark}" for remark in remarks]


def unlabelled_by_all(
    subsets: LabelSubsets, pixels_C_of: Mapping[str, npt.NDArray[np.int64]], space: LabelSpace
) -> list[str]:
    """Note classes that occur in images but that no client labels.

    Args:
        subsets: the classes that each client labels; empty if every client labels all.
        pixels_C_of: client -> pixels of each class before any are erased.
        space: label space of the samples.
    """
    if not subsets:
        return []
    everything = range(space.num_classes)
    named = {c for client in pixels_C_of for c in subsets.get(client, everything)}
    shown_C = np.sum([*pixels_C_of.values()], axis=0)
    missing = [space.classes[c] for c in everything if shown_C[c] and c not in named]
    what = "this class" if len(missing) == 1 else "these classes"
    note = f"no client labels {listing(missing, 10)}, so the model cannot learn {what}"
    return [note] if missing else []


def why_unusable(samples: Sequence[Sample], bad: Mapping[int, str]) -> str:
    """Say in one line why samples are unusable: how many are unlabelled, or bad for which reason.

    Args:
        samples: all samples.
        bad: sample number -> what is wrong with it.
    """
    texts = {number: _without_file(text, samples[number]) for number, text in bad.items()}
    counts = Counter(reason(text) for text in texts.values())
    parts = [f"{n} of {len(samples)} samples: {what}" for what, n in counts.most_common(3)]
    unlabelled = sum(s.label is None for i, s in enumerate(samples) if i not in bad)
    if unlabelled:
        parts.append(f"{unlabelled} of {len(samples)} samples have no label")
    return "; ".join(parts)


def common_cure(samples: Sequence[Sample], bad: Mapping[int, str]) -> str:
    """Return the cure that most bad samples share, "" if there is none."""
    cures = Counter(
        _without_file(text, samples[number]).partition(". ")[2] for number, text in bad.items()
    )
    return cures.most_common(1)[0][0] if cures else ""


def _without_file(text: str, sample: Sample) -> str:
    return text.removeprefix(f"{sample.label}: ").removeprefix(f"{sample.image}: ")
