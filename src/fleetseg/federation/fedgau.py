"""FedGau: clients are weighted by how near the Gaussian of their images is to the fleet's.

Kou et al. 2024, arXiv 2409.19560. All values of all of a client's images (3HW each) are treated as
drawn from one Gaussian, and so are those of the fleet; the distance is Bhattacharyya's. The
authors' repository does not show how distances become weights: its weights are hard-coded. Here
w_i = n_i / (D_i + epsilon) with n_i images: with a large epsilon, weights by images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Pairs
from fleetseg.federation.known import Known
from fleetseg.federation.messages import Enrolment

Floats = npt.NDArray[np.float32]

IMAGE_GAUSSIAN = "image_gaussian"
Gaussian = tuple[float, float]  # mean and variance, of values from 0 to 255
_LEAST_VARIANCE = 1 / 12  # from rounding to whole numbers
_MOST_VARIANCE = 255.0**2 / 2  # of the two values 0 and 255; less for more values


def image_gaussian(train: Pairs) -> Floats:
    """Return (mean, unbiased variance, values per image) over all of a client's images.

    Computed from integer counts, so that the order of the images does not matter.
    """
    counts = np.zeros(256, dtype=np.int64)
    for k in range(len(train)):
        counts += np.bincount(train[k][0].ravel(), minlength=256)
    levels = range(256)
    number = int(counts.sum())
    total = sum(x * int(n) for x, n in zip(levels, counts, strict=True))
    squares = sum(x * x * int(n) for x, n in zip(levels, counts, strict=True))
    variance = (number * squares - total * total) / (number * max(1, number - 1))
    return np.array([total / number, variance, number / len(train)], dtype=np.float32)


def gaussian_of(enrolment: Enrolment) -> Gaussian:
    """Read the Gaussian that a client reports, clipped to what 8-bit images can have."""
    mean, variance, _ = (float(x) for x in enrolment.facts[IMAGE_GAUSSIAN])
    return within_images(mean, variance)


def within_images(mean: float, variance: float) -> Gaussian:
    """Clip a mean and a variance to what 8-bit images can have."""
    return min(max(mean, 0.0), 255.0), min(max(variance, _LEAST_VARIANCE), _MOST_VARIANCE)


def pooled_gaussian(enrolled: Mapping[str, Enrolment]) -> Floats:
    """Return (mean, unbiased variance) over the images of all clients, from each client's.

    Images count as having one size, the clients' median, so that no client can outweigh all others
    by claiming another.
    """
    sizes = [float(e.facts[IMAGE_GAUSSIAN][2]) for e in enrolled.values()]  # two add up in float64
    size = max(1.0, float(np.median(sizes)))
    parts = [(e.num_images * size, *gaussian_of(e)) for e in enrolled.values()]
    number = math.fsum(n for n, _, _ in parts)
    mean = math.fsum(n * m for n, m, _ in parts) / number
    squares = math.fsum((n - 1) * v + n * (m - mean) ** 2 for n, m, v in parts)
    return np.array([mean, squares / max(1.0, number - 1)], dtype=np.float32)


def bhattacharyya(one: Gaussian, other: Gaussian) -> float:
    """Return the distance between two Gaussians: -ln of the integral of sqrt(p q).

    1/4 ln(1/4 (s/t + t/s + 2)) + 1/4 (m - n)^2 / (s + t), with means m, n and variances s, t.
    """
    (mean, variance), (mean_2, variance_2) = one, other
    ratios = variance / variance_2 + variance_2 / variance + 2
    return math.log(ratios / 4) / 4 + (mean - mean_2) ** 2 / (variance + variance_2) / 4


def fedgau(known: Known) -> dict[str, float]:
    """Weigh clients by their images, divided by their distance to the fleet."""
    mean, variance = (float(x) for x in known.facts[IMAGE_GAUSSIAN])
    fleet, epsilon = (mean, variance), known.settings.fedgau.epsilon
    return {
        client: e.num_images / (max(0.0, bhattacharyya(gaussian_of(e), fleet)) + epsilon)
        for client, e in known.enrolled.items()
    }
