"""How much each client's change counts: a function in `WEIGHTS` over what clients enrolled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleetseg.config import FederationConfig
from fleetseg.federation.messages import Enrolment

Weights = Callable[[Mapping[str, Enrolment], FederationConfig], dict[str, int]]
"""(enrolments of the clients that are asked, settings) -> a weight above zero for each."""

WEIGHTS: dict[str, Weights] = {
    "images": lambda enrolled, settings: {client: e.num_images for client, e in enrolled.items()},
    "pixels": lambda enrolled, settings: {client: e.num_pixels for client, e in enrolled.items()},
    "uniform": lambda enrolled, settings: dict.fromkeys(enrolled, 1),
}
