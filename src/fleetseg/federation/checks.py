"""The checks that a whole reply must pass before any of its values is used.

For the bound on single values see `aggregate.MAX_VALUE`. A reply that fails is rejected with a
reason code and counted; it never ends the run.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import MAX_VALUE
from fleetseg.federation.messages import Enrolment, Evaluation, NormReport, Update
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.models.norm_statistics import MAX_SUM

MAX_LOSS = 1e9
"""Largest magnitude of a reported loss, which keeps the mean over clients finite."""
MAX_COUNTER_STEP = 1 << 31
"""Most that a counter may grow in a round, so that no client can make it overflow."""
MAX_IMAGES = 1 << 24
"""Most images that any client can have; fleet.max_images is lower."""
MAX_IMAGE_PIXELS = 1 << 28
"""Most pixels of one image."""
MAX_NAME = 500
"""Most characters of a client's name, or of its reason to abstain."""


def validate_update(
    update: Update,
    *,
    layout: Layout,
    base: ModelState,
    round_: int,
    enrolled: Enrolment,
    max_norm: float,
) -> None:
    """Check a whole update.

    Raises:
        UpdateRejected: with a reason code; no part of the update has been used by then.
    """
    if update.round != round_:
        raise UpdateRejected("stale", "update of another round", got=update.round, expected=round_)
    _check_count("num_images", update.num_images, enrolled.num_images)
    if enrolled.num_pixels or update.num_pixels:  # both 0 for a client without labels
        _check_count("num_pixels", update.num_pixels, enrolled.num_pixels)
    _check_count("num_steps", update.num_steps, 1 << 31)
    _check_count("images_seen", update.images_seen, 1 << 40)
    if not isinstance(update.loss, float) or not math.isfinite(update.loss):
        raise UpdateRejected("non-finite", "the loss is not a finite number", got=update.loss)
    if abs(update.loss) > MAX_LOSS:
        raise UpdateRejected(
            "magnitude", "the loss is too large", got=update.loss, expected=f"<= {MAX_LOSS:g}"
        )
    _check_values(update.change, layout, base, max_norm)


def _check_count(name: str, value: object, cap: int) -> None:
    if type(value) is not int or not 0 < value <= cap:
        raise UpdateRejected(
            "count", f"{name} is out of range", got=repr(value), expected=f"1..{cap}"
        )


def _check_values(delta: ModelState, layout: Layout, base: ModelState, max_norm: float) -> None:
    assert delta.values_F.shape == base.values_F.shape
    assert delta.counters_K.shape == base.counters_K.shape
    values_F = delta.values_F.numpy()
    # The extremes reveal NaN and infinity too, in one pass and without an array of flags.
    low, high = (float(value) for value in torch.aminmax(delta.values_F))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UpdateRejected("non-finite", "NaN or infinity", where=_first_bad(values_F, layout))
    if max(-low, high) > MAX_VALUE:
        raise UpdateRejected(
            "magnitude", "a value is too large", got=max(-low, high), expected=f"<= {MAX_VALUE}"
        )
    variances_V = layout.variances_V
    negative_V = base.values_F[variances_V] + delta.values_F[variances_V] < 0
    if bool(negative_V.any()):
        where = _owner(int(variances_V[negative_V][0]), layout)
        raise UpdateRejected("variance", "a variance is negative", where=where)
    # Counters are absolute values, not changes; comparing them cannot wrap around.
    lowest_K, highest_K = base.counters_K.clamp(max=0), base.counters_K + MAX_COUNTER_STEP
    if bool(((delta.counters_K < lowest_K) | (delta.counters_K > highest_K)).any()):
        raise UpdateRejected("count", "a counter is negative or grows too fast")
    if max_norm > 0 and (norm := norm_of(delta, layout)) > max_norm:
        raise UpdateRejected(
            "norm", "the update is too large (L2)", got=round(norm, 3), expected=f"<= {max_norm}"
        )


def norm_of(delta: ModelState, layout: Layout) -> float:
    """Return the L2 norm of the trainable values of a change."""
    trainable_T = delta.values_F.numpy()[: layout.num_trainable]
    return math.sqrt(float(np.dot(trainable_T, trainable_T)))


def _first_bad(values_F: npt.NDArray[np.float32], layout: Layout) -> str:
    return _owner(int(np.flatnonzero(~np.isfinite(values_F))[0]), layout)


def _owner(position: int, layout: Layout) -> str:
    return next(entry.key for entry in layout.floats if position < entry.stop)


def validate_evaluation(
    reply: Evaluation, *, round_: int, num_classes: int, max_pixels: int
) -> None:
    """Check a client's confusion matrices.

    Raises:
        UpdateRejected: for a wrong round, shape or dtype, negative counts or too many pixels.
    """
    if reply.round != round_:
        raise UpdateRejected("stale", "scores of another round", got=reply.round, expected=round_)
    pixels = 0
    for conf_CC in reply.conf_by_domain.values():
        if conf_CC.shape != (num_classes, num_classes) or conf_CC.dtype != np.int64:
            raise UpdateRejected("shape", "not an int64 confusion matrix", got=conf_CC.shape)
        # Check each entry first: a sum of huge ones could wrap around to a small number.
        if conf_CC.size and (conf_CC.min() < 0 or conf_CC.max() > max_pixels):
            raise UpdateRejected("count", "negative or too large counts in a confusion matrix")
        pixels += sum(conf_CC.ravel().tolist())  # Python's integers do not wrap around
    if pixels > max_pixels:
        raise UpdateRejected("count", "more pixels scored than enrolled", got=pixels)


def validate_norm_report(
    reply: NormReport,
    *,
    round_: int,
    counts_L: npt.NDArray[np.int64],
    channels_L: npt.NDArray[np.int64],
) -> None:
    """Check a client's sums over the inputs of L batch-norm layers.

    `counts_L` is the number of values per channel of each layer that the client's enrolled images
    give, `channels_L` the number of channels of each.

    Raises:
        UpdateRejected: for a wrong round, shape or count, or sums that are not finite, too large or
            imply a negative variance.
    """
    sums = reply.sums
    if reply.round != round_:
        raise UpdateRejected("stale", "sums of another round", got=reply.round, expected=round_)
    size = int(channels_L.sum())
    if (len(sums.counts_L), len(sums.sums_C), len(sums.squares_C)) != (len(counts_L), size, size):
        raise UpdateRejected("shape", "sums for a wrong number of layers or channels")
    if not np.array_equal(sums.counts_L, counts_L):
        raise UpdateRejected("count", "counts do not match the client's images")
    if not (np.isfinite(sums.sums_C).all() and np.isfinite(sums.squares_C).all()):
        raise UpdateRejected("non-finite", "a sum is not a finite number")
    counts_C = np.repeat(counts_L, channels_L).astype(np.float64)
    if (sums.squares_C > np.minimum(counts_C * MAX_VALUE**2, MAX_SUM)).any():
        raise UpdateRejected("magnitude", "a sum of squares is too large")
    # This bounds the sums too. The tolerance is for rounding where values are nearly constant.
    with np.errstate(over="ignore"):  # infinity exceeds every bound
        squared_C = sums.sums_C**2
    if (squared_C > counts_C * sums.squares_C * (1 + 1e-9)).any():
        raise UpdateRejected("variance", "a sum of squares is less than its mean allows")


def check_enrolment(
    enrolment: Enrolment,
    num_classes: int,
    *,
    needs_labels: bool = True,
    max_images: int = MAX_IMAGES,
) -> None:
    """Check an enrolment's form and size, or raise UpdateRejected; its truth cannot be checked.

    Weights and fleet-wide class weights are computed from these counts, and a client far above all
    others would dominate the model: no vehicle may claim more images than the operator allows.
    """
    texts = (enrolment.client_id, enrolment.abstains)
    if not all(isinstance(text, str) and len(text) <= MAX_NAME for text in texts):
        raise UpdateRejected("malformed", "a name is not text, or too long")
    if not enrolment.client_id or not all(text.isprintable() for text in texts):
        raise UpdateRejected("malformed", "a name is empty or cannot be printed")
    counts = (
        enrolment.num_images,
        enrolment.num_pixels,
        enrolment.num_test_pixels,
        *enrolment.histogram_C,
    )
    if not all(type(n) is int and 0 <= n < 1 << 53 for n in counts):
        raise UpdateRejected("count", "an enrolled count is out of range")
    if len(enrolment.histogram_C) != num_classes:
        got = len(enrolment.histogram_C)
        raise UpdateRejected("labels", "wrong number of classes", got=got, expected=num_classes)
    if sum(enrolment.histogram_C) != enrolment.num_pixels:
        raise UpdateRejected("count", "class counts do not add up to the pixels")
    if enrolment.num_images > max_images:
        raise UpdateRejected(
            "count",
            "enrols with more images than fleet.max_images allows",
            got=enrolment.num_images,
            expected=f"<= {max_images}",
        )
    if enrolment.num_pixels > enrolment.num_images * MAX_IMAGE_PIXELS:
        raise UpdateRejected("count", "more pixels than its images can have")
    if enrolment.num_test_pixels > max_images * MAX_IMAGE_PIXELS:
        raise UpdateRejected("count", "more test pixels than images can have")
    if enrolment.abstains:
        return
    if not enrolment.num_images or (needs_labels and not enrolment.num_pixels):
        raise UpdateRejected("count", "takes part without a labelled image")
