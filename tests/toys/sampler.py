"""A sampler as somebody else would add one: this file, and a line in a dict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fleetseg.config import FederationConfig
from fleetseg.federation.messages import Enrolment


def fewest_images(
    enrolled: Mapping[str, Enrolment],
    count: int,
    generator: np.random.Generator,
    settings: FederationConfig,
) -> list[str]:
    """Ask those that hold least; the generator breaks ties."""
    order = generator.permutation(len(enrolled))
    names = [list(enrolled)[i] for i in order]
    return sorted(names, key=lambda name: enrolled[name].num_images)[:count]
