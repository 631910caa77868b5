"""The interface of aggregators, and the weighted mean that most of them build on.

The mean is streaming, in int64 fixed point.

Each value w_i * d_i is rounded once to a multiple of 2**-36 and summed as an integer. Integer
addition commutes exactly, so the mean has the same bits for every arrival order and number of
workers, and memory is one int64 vector however many clients report.

Weights are relative to the total weight of the cohort, which is known before the first reply, so
the terms do not depend on which clients reply; the mean divides by the weight of those that did. A
client with a far larger weight would leave the others no bits, so clients far below the cohort's
average weight are summed separately, relative to their own total (`by_magnitude`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fleetseg.config import FederationConfig
from fleetseg.errors import UpdateRejected


class Aggregator(Protocol):
    """Aggregates the changes of one round: `add` each as it arrives, then `finish` once."""

    def add(self, client_id: str, change_F: npt.NDArray[np.float32], num_steps: int = 1) -> None:
        """Add a validated change that took `num_steps` steps; its memory stays the caller's.

        Raises:
            UpdateRejected: the rule cannot use the change; none of it has been added.
        """
        ...

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the aggregated change (suffix F); at least one change was added."""
        ...


@dataclass(frozen=True)
class Opening:
    """What is known about a round before its first reply."""

    size: int  # F: number of values in a change
    num_trainable: int  # number of trainable ones, which come first
    weights: Mapping[str, int]  # of each client in the cohort, > 0
    settings: FederationConfig
    scratch: Path | None = None  # a folder for what does not fit in memory; None = the system's
    round: int = 1
    # How many steps each client takes on its enrolled images, and how far that many steps carry a
    # gradient of 1 in this round: see learning.travel.
    steps: Mapping[str, int] = field(default_factory=dict)
    travel: Callable[[int], float] = float
    # The measures in `aggregators.MEASURES_OF` of each client whose change was added; filled as
    # updates arrive.
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def travel_of(self, client_id: str, num_steps: int) -> float:
        """Return how far a client's steps carry a gradient; the client itself reports their number.

        Raises:
            UpdateRejected: the client reports more steps than its images allow.
        """
        if num_steps > (most := self.steps[client_id]):
            raise UpdateRejected(
                "count",
                "more steps than the enrolled images allow",
                got=num_steps,
                expected=f"<= {most}",
            )
        return self.travel(num_steps)


FRACTION_BITS = 36
"""Rounding step 2**-36 = 1.5e-11: below float32's own step for any weight above 1e-4."""
MAX_VALUE = float(2**14)
"""Largest magnitude of a value in an update; the fixed-point range leaves room for the sum."""
_CHUNK = 1 << 15  # values per pass: 256 KiB of float64, which stays in cache
# Adding 1.5 * 2**52 to a float64 below 2**51 leaves the rounded integer in the low mantissa bits:
# rounding and conversion in one addition. `finish` subtracts the constant again.
_MAGIC = np.float64(3 << 51)
_MAGIC_BITS = int(np.array(_MAGIC).view(np.int64))


FAR_BELOW = 1 << 8
"""A client whose weight is below the average divided by this is summed separately."""


def by_magnitude(weights: Mapping[str, int]) -> dict[str, int]:
    """Group clients by the magnitude of their weights; returns each one's group, 0 the heaviest.

    Within a group, every weight is at least 1 / FAR_BELOW of the group's average. So the mean over
    half of a cohort is accurate to 2**-37 * 2 * 2**8 = 4e-9, whatever was enrolled and whichever
    clients do not reply: the step of a float32 of 0.03.

    >>> by_magnitude({"a": 500, "b": 3, "c": 1 << 40})
    {'a': 1, 'b': 1, 'c': 0}
    """
    group: dict[str, int] = {}
    left = dict(weights)
    number = 0
    while left:
        average = sum(left.values()) / len(left)
        heavy = {c for c, weight in left.items() if weight * FAR_BELOW >= average}
        heavy = heavy or set(left)  # `add` refuses invalid weights
        group |= dict.fromkeys(heavy, number)
        left = {c: weight for c, weight in left.items() if c not in heavy}
        number += 1
    return {c: group[c] for c in weights}


@dataclass
class FixedPointMean:
    """The weighted mean of a round, as an `Aggregator`; usually it has one sum."""

    size: int
    weights: Mapping[str, int]  # of the whole cohort
    _group: dict[str, int] = field(init=False, repr=False)
    _sums: dict[int, _Sum] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._group, self._sums = by_magnitude(self.weights), {}
        self._work = np.empty(min(_CHUNK, self.size), dtype=np.float64)

    def add(self, client_id: str, change_F: npt.NDArray[np.float32], num_steps: int = 1) -> None:
        """Add one validated vector; |values| <= MAX_VALUE."""
        assert change_F.shape == (self.size,)
        weight, number = self.weights[client_id], self._group[client_id]
        assert weight > 0
        if number not in self._sums:
            total = sum(w for c, w in self.weights.items() if self._group[c] == number)
            self._sums[number] = _Sum(self.size, total, self._work)
        self._sums[number].add(weight, change_F)

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the weighted mean, in half of the first sum's memory; the sums are consumed."""
        assert self._sums
        first, *others = (self._sums[number] for number in sorted(self._sums))
        weight = sum(part.weight for part in (first, *others))
        mean = first.values.view(np.float32)
        for start in range(0, self.size, _CHUNK):
            stop = min(start + _CHUNK, self.size)
            work = first.part(start, stop, weight, self._work)
            for other in others:
                work += other.part(start, stop, weight, np.empty_like(work))
            # Half as wide, so it never overwrites what has yet to be read.
            mean[start:stop] = work
        del mean  # the memory may move
        taken, self._sums = first.values, {}
        del first
        taken.resize((self.size + 1) // 2, refcheck=False)
        return taken.view(np.float32)[: self.size]


class _Sum:
    """The sum of one group of clients whose weights have the same magnitude."""

    def __init__(self, size: int, total_weight: int, work: npt.NDArray[np.float64]) -> None:
        self.total_weight = total_weight  # of the cohort
        self.weight = self.count = 0  # of the replies so far
        self.values = np.empty(size, dtype=np.int64)  # the first update writes it
        self._work = work

    def add(self, weight: int, change_F: npt.NDArray[np.float32]) -> None:
        """Add one vector."""
        scale = np.float64(weight / self.total_weight * 2.0**FRACTION_BITS)
        for start in range(0, self.values.size, _CHUNK):
            part = change_F[start : start + _CHUNK]
            work = self._work[: part.size]
            np.copyto(work, part)  # a direct multiply would convert in small buffers
            np.multiply(work, scale, out=work)
            total = self.values[start : start + _CHUNK]
            if self.count == 0:
                np.add(work, _MAGIC, out=total.view(np.float64))
                continue
            np.add(work, _MAGIC, out=work)
            np.add(total, work.view(np.int64), out=total)  # wraps around, as intended
        self.weight += weight
        self.count += 1

    def part(
        self, start: int, stop: int, weight: int, room: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return this sum's part of a mean over total `weight`, for values start to stop."""
        # Subtract all constants but one, which turns the integer back into a float64: exact,
        # because the sum's magnitude is at most MAX_VALUE * 2**36 = 2**50. The sum wrapped around
        # modulo 2**64, so what is subtracted is cut to 64 bits in the same way.
        offset = (self.count - 1) * _MAGIC_BITS & (2**64 - 1)
        offset_i8 = np.array(offset, dtype=np.uint64).view(np.int64)
        work = room[: stop - start]
        np.subtract(self.values[start:stop], offset_i8, out=work.view(np.int64))
        np.subtract(work, _MAGIC, out=work)
        unscale = np.float64(self.total_weight / weight * 2.0**-FRACTION_BITS)
        np.multiply(work, unscale, out=work)
        return work
