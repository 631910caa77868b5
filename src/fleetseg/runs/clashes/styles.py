"""Styles that cannot be reported, or whose noise would hide nothing."""

from __future__ import annotations

import math

from fleetseg.config import Experiment
from fleetseg.data.styles import shape_of
from fleetseg.federation.wire import MAX_FACT
from fleetseg.runs.clashes.clash import Clash


def _has_styles(experiment: Experiment) -> bool:
    return experiment.training.style.kind != "none"


def _noise(experiment: Experiment) -> bool:
    return _has_styles(experiment) and experiment.training.style.noise > 0


def _window_is_larger(experiment: Experiment) -> bool:
    style, size = experiment.training.style, experiment.data.size
    return style.kind == "fda" and 2 * style.fda.window >= min(size)


def _are_too_many(experiment: Experiment) -> bool:
    if not _has_styles(experiment):
        return False
    style = experiment.training.style
    styles = style.images if style.per == "image" else 1
    return styles * (1 + math.prod(shape_of(style, experiment.data.size))) > MAX_FACT


STYLES: tuple[Clash, ...] = (
    (
        lambda e: e.pretrain.style_probability > 0 and not _has_styles(e),
        "pretrain.style_probability has the server's images take on what vehicles tell of their "
        "style, and training.style.kind = 'none' has them tell nothing; use 'fda' or 'lab', with "
        "training.style.probability = 0 if no vehicle's image is to take on another's",
    ),
    (
        lambda e: _noise(e) and e.training.style.per == "image",
        "training.style.noise hides one image among those of which a vehicle tells the mean, and "
        "training.style.per = 'image' tells each; use 'client'",
    ),
    (
        lambda e: _noise(e) and e.training.style.kind == "cfsi",
        "training.style.noise is as large as all numbers of a style together let one image move "
        "it, and those of cfsi are thousands: it would be noise alone; use 'fda' or 'lab'",
    ),
    (
        _window_is_larger,
        "training.style.fda.window has frequencies that images of data.size have not; use a "
        "smaller one",
    ),
    (
        _are_too_many,
        f"a vehicle's styles may have {MAX_FACT:,} numbers together, and these settings give more; "
        "lower training.style.images, training.style.cfsi.share or training.style.fda.window",
    ),
)
