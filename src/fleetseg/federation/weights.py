"""How much each client's change counts: a function in `WEIGHTS` over what clients enrolled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleetseg.federation.messages import Enrolment

Weights = Callable[[Mapping[str, Enrolment]], dict[str, int]]
"""Enrolments of the clients that are asked -> a weight above zero for each."""

WEIGHTS: dict[str, Weights] = {
    "images": lambda enrolled: {client: e.num_images for client, e in enrolled.items()},
    "pixels": lambda enrolled: {client: e.num_pixels for client, e in enrolled.items()},
    "uniform": lambda enrolled: dict.fromkeys(enrolled, 1),
}
