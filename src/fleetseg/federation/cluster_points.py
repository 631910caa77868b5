"""Vehicles as points to be clustered, made from what each reports once.

Clustering is by "class mix" (the class shares in an enrolment's counts), by the name of a fact that
each vehicle reports, or by "loss", where vehicles choose in each round and report nothing before.
Distances are Euclidean, between the numbers of a fact or what `_PLACES` computes from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fleetseg.config import Experiment
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC
from fleetseg.errors import unknown_name
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN, within_images
from fleetseg.federation.fleet_facts import FLEET_FACTS
from fleetseg.federation.messages import Enrolment

Floats = npt.NDArray[np.float64]
CLASS_MIX = "class mix"


def _of_gaussian(fact: Floats) -> Floats:
    """Return mean and standard deviation, whose distance is the Wasserstein one of Gaussians."""
    mean, variance = within_images(fact[0], fact[1])
    return np.array([mean, np.sqrt(variance)])


_PLACES: Mapping[str, Callable[[Floats], Floats]] = {
    IMAGE_GAUSSIAN: _of_gaussian,
    "styles": lambda styles: styles.mean(axis=0),  # one style per vehicle, or one per image
}


def ways_to_cluster() -> tuple[str, ...]:
    """Return the ways to cluster, including facts that a user has added."""
    reported = (name for name, fact in FLEET_FACTS.items() if fact.is_reported)
    return ("none", CLASS_MIX, BY_LOSS, *reported)


def require_way(name: str) -> None:
    """Refuse an unknown way to cluster.

    Raises:
        ConfigError: with the nearest known name.
    """
    if name not in ways_to_cluster():
        raise unknown_name("way to cluster", name, ways_to_cluster())


def point_of(enrolment: Enrolment, by: str) -> Floats | None:
    """Return a vehicle's point (D), or None if it reports nothing to cluster by."""
    if by == CLASS_MIX:
        counts_C = np.array(enrolment.histogram_C, dtype=np.float64)
        return counts_C / counts_C.sum() if counts_C.sum() > 0 else None
    fact = enrolment.facts.get(by)
    return None if fact is None else _placed(fact, by)


def is_of_images(by: str) -> bool:
    """Return whether a single image without labels has a point among the vehicles'."""
    return by in FLEET_FACTS and FLEET_FACTS[by].is_reported


def point_of_image(image_HWC: Image_HWC, experiment: Experiment) -> Floats:
    """Return an image's point (D), as if a vehicle held only this image, without labels."""
    by, experiment = experiment.federation.clustered_by, _without_noise(experiment)
    nothing_HW = np.full(image_HWC.shape[:2], IGNORE, dtype=np.uint8)
    return _placed(FLEET_FACTS[by].reported(experiment, [(image_HWC, nothing_HW)]), by)


def _without_noise(experiment: Experiment) -> Experiment:
    """Turn off the noise on styles: a test image's style is not sent to anyone."""
    style = experiment.training.style.model_copy(update={"noise": 0.0})
    training = experiment.training.model_copy(update={"style": style})
    return experiment.model_copy(update={"training": training})


def _placed(fact: npt.NDArray[np.float32], by: str) -> Floats:
    numbers = np.asarray(fact, dtype=np.float64)
    return _PLACES[by](numbers).ravel() if by in _PLACES else numbers.ravel()
