"""Limits on what clients claim to hold: no client counts for many times the median.

Weights, sampling and fleet-wide class weights are computed from the counts that clients report
about themselves. The server cannot verify them, so the client that claims the most would dominate
the model. Counts of images and pixels are capped at `times` the fleet's median; updates are still
checked against the enrolled counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from fleetseg.federation.messages import Enrolment


@dataclass(frozen=True)
class Claims:
    """The operator's limits on what clients count for.

    Args:
        times: cap, as a multiple of the median; 0 = no cap.
        vouched: names whose counts the operator has bounded; their claims, and those of clients
            named NAME/..., are not capped.
        tell: called once for each client that is capped, with a message.
    """

    times: float = 0.0
    vouched: Collection[str] = ()
    tell: Callable[[str], None] = lambda text: None
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def believed(self, enrolled: Mapping[str, Enrolment]) -> dict[str, Enrolment]:
        """Return the enrolments with their counts capped, in the same order."""
        if not self.times or len(enrolled) < 2:
            return dict(enrolled)
        # The lower of two middle values: of two clients, the larger claim may be the false one.
        most_images = self._most([e.num_images for e in enrolled.values()])
        most_pixels = self._most([e.num_pixels for e in enrolled.values() if e.num_pixels])
        return {
            name: e if self._is_vouched(name) else self._cut(e, most_images, most_pixels)
            for name, e in enrolled.items()
        }

    def _most(self, counts: list[int]) -> int:
        return max(1, int(self.times * statistics.median_low(counts))) if counts else 0

    def _is_vouched(self, client: str) -> bool:
        return client in self.vouched or client.partition("/")[0] in self.vouched

    def _cut(self, said: Enrolment, most_images: int, most_pixels: int) -> Enrolment:
        if said.num_images <= most_images and said.num_pixels <= most_pixels:
            return said
        histogram_C = scaled(said.histogram_C, most_pixels)
        images, pixels = min(said.num_images, most_images), sum(histogram_C)
        if said.client_id not in self._told:
            self._told.add(said.client_id)
            self.tell(
                f"{said.client_id} claims {said.num_images:,} images and "
                f"{said.num_pixels:,} labelled pixels; it counts as {images:,} and {pixels:,} "
                f"(fleet.max_times_median = {self.times:g})"
            )
        return replace(said, num_images=images, num_pixels=pixels, histogram_C=histogram_C)


def scaled(histogram_C: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Scale counts down to a sum of at most `most`, and of at least one if there was any.

    >>> scaled((600, 300, 0), 90), scaled((1, 1), 5), scaled((7, 9), 1)
    ((60, 30, 0), (1, 1), (0, 1))
    """
    total = sum(histogram_C)
    if total <= most:
        return histogram_C
    shrunk = [count * most // total for count in histogram_C]
    if not any(shrunk):
        shrunk[histogram_C.index(max(histogram_C))] = 1
    return tuple(shrunk)


def cut_to(enrolled: Mapping[str, Enrolment], believed: Mapping[str, Enrolment]) -> dict[str, int]:
    """Return the clients that count for less than they claim, and the images they count for."""
    return {c: believed[c].num_images for c in sorted(enrolled) if believed[c] is not enrolled[c]}
