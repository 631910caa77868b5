"""How far it is believed what clients say they hold: nobody counts for many times the median.

Weights, who is drawn, and class weights of the whole fleet come of what each client says of itself.
Nobody else sees whether it is true, so one that claims the most would take the model over. Counts
of images and pixels are cut to `times` the fleet's median; what updates are checked against is what
was enrolled. So are weights and losses that come of anything else that clients tell: to `times` the
median of a cohort's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from fleetseg.federation.messages import Enrolment


@dataclass(frozen=True)
class Claims:
    """What the operator lets clients count for.

    Args:
        times: of the median; 0 = all is believed.
        vouched: names whose counts the operator has bounded: theirs, and of those named NAME/...,
            are believed.
        tell: told once of each client that is cut.
    """

    times: float = 0.0
    vouched: Collection[str] = ()
    tell: Callable[[str], None] = lambda text: None
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def believed(self, enrolled: Mapping[str, Enrolment]) -> dict[str, Enrolment]:
        """Return what each client counts for, in the same order."""
        if not self.times or len(enrolled) < 2:
            return dict(enrolled)
        # Of two in the middle, the lower: of two clients, one can be the liar.
        most_images = self._most([e.num_images for e in enrolled.values()])
        most_pixels = self._most([e.num_pixels for e in enrolled.values() if e.num_pixels])
        return {
            name: e if self._is_vouched(name) else self._cut(e, most_images, most_pixels)
            for name, e in enrolled.items()
        }

    def bounded(self, numbers: Mapping[str, float], what: str) -> dict[str, float]:
        """Cut numbers of some clients, what they tell or what was made of it, in the same order."""
        if not self.times or len(numbers) < 2:
            return dict(numbers)
        most = self.times * statistics.median_low(numbers.values())
        for name in (c for c in numbers if numbers[c] > most and not self._is_vouched(c)):
            self._tell_once(
                name, f"{name} counts for {self.times:g} times the median of {what}, at most"
            )
        return {c: n if self._is_vouched(c) else min(n, most) for c, n in numbers.items()}

    def _tell_once(self, client: str, text: str) -> None:
        if client not in self._told:
            self._told.add(client)
            self.tell(f"{text} (fleet.max_times_median = {self.times:g})")

    def _most(self, counts: list[int]) -> int:
        return max(1, int(self.times * statistics.median_low(counts))) if counts else 0

    def _is_vouched(self, client: str) -> bool:
        return client in self.vouched or client.partition("/")[0] in self.vouched

    def _cut(self, said: Enrolment, most_images: int, most_pixels: int) -> Enrolment:
        if said.num_images <= most_images and said.num_pixels <= most_pixels:
            return said
        histogram_C = scaled(said.histogram_C, most_pixels)
        images, pixels = min(said.num_images, most_images), sum(histogram_C)
        self._tell_once(
            said.client_id,
            f"{said.client_id} says that it holds {said.num_images:,} images and "
            f"{said.num_pixels:,} labelled pixels; it counts as {images:,} and {pixels:,}",
        )
        return replace(said, num_images=images, num_pixels=pixels, histogram_C=histogram_C)


def scaled(histogram_C: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Shrink counts to a sum of at most `most`, and at least one where there was one.

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
    """Name the clients that count for less than they say, with the images they count for."""
    return {c: believed[c].num_images for c in sorted(enrolled) if believed[c] is not enrolled[c]}
