"""Metadata of an exported file: texts by name, all JSON except plain names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleetseg._version import __version__
from fleetseg.data.labels import LabelSpace
from fleetseg.export.frames import Frames
from fleetseg.export.parity import Parity
from fleetseg.models.segmenter import Segmenter


def facts_of(
    segmenter: Segmenter,
    space: LabelSpace,
    size_hw: tuple[int, int],
    sha256: str,
    protocol: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Describe the input, the output, the meaning of the classes, and how the model was scored.

    `protocol` is that of the run's scores, as written by `Protocol.to_dict`.
    """
    return {
        "fleetseg": __version__,
        "network": segmenter.name,
        "weights_sha256": sha256,
        "input": "images: uint8 (N, height, width, 3), RGB as a camera gives it",
        "output": "logits: float32 (N, classes, h, w), to be resized bilinearly (pixel centres at "
        "halves) before the argmax",
        "size_hw": json.dumps(list(size_hw)),
        "label_space": space.name,
        "classes": json.dumps(list(space.classes), ensure_ascii=False),
        "colours": json.dumps([list(colour) for colour in space.colours]),
        "critical": json.dumps(list(space.critical), ensure_ascii=False),
        "protocol": json.dumps(protocol, ensure_ascii=False),
    }


def parity_fact(found: Parity, frames: Frames) -> str:
    """Describe how the file was compared with the network."""
    return json.dumps({
        "images": found.images,
        "of": frames.name,
        "max_logit_difference": found.max_difference,
        "largest_logit": found.largest,
        "pixels_of_the_same_class": found.agreement,
    })  # fmt: skip
