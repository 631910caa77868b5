"""Labels with Cityscapes ids, raw or train ids, which many other data sets use too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fleetseg.data.labels import (
    CITYSCAPES_19,
    CITYSCAPES_ID_TO_TRAIN,
    CITYSCAPES_RAW_IDS,
    IGNORE,
)
from fleetseg.data.sample import Image_HWC, Label_HW, Sample
from fleetseg.data.sources.label_encoding import LabelEncoding, train_id_code
from fleetseg.data.sources.reading import read_sample

TRAIN = "_labelTrainIds"
RAW = "_labelIds"
"""Endings of label file names; files of train ids are derived from raw ones."""


def raw_ids(void_cure: str = "", cure: str = "") -> LabelEncoding:
    """Return the encoding of files that hold Cityscapes' raw ids.

    Args:
        void_cure: advice for a label that is all void.
        cure: advice for unknown ids.
    """
    return LabelEncoding(
        table=CITYSCAPES_ID_TO_TRAIN,
        known=(*range(CITYSCAPES_RAW_IDS), IGNORE),
        expected="raw Cityscapes ids 0-33, or 255",
        cure=cure,
        void_cure=void_cure,
    )


def derived_ids(void_cure: str = "") -> LabelEncoding:
    """Return the encoding of files that hold Cityscapes' train ids, beside files of raw ids."""
    code = train_id_code(
        CITYSCAPES_19, cure="Raw Cityscapes ids belong in a file named *_labelIds.png"
    )
    return replace(code, void_cure=void_cure)


def read_either(
    sample: Sample, *, raw: LabelEncoding, derived: LabelEncoding
) -> tuple[Image_HWC, Label_HW | None]:
    """Read a sample; its label has train ids if the file name says so, else raw ids.

    Raises:
        BadSample: as `read_sample`.
    """
    is_derived = sample.label is not None and Path(sample.label).stem.endswith(TRAIN)
    return read_sample(sample, space=CITYSCAPES_19, code=derived if is_derived else raw)
