"""What an aggregator is, and the weighted mean, which most of them build on.

The mean is streaming, in int64 fixed point.

Each value w_i * d_i is rounded once to a multiple of 2**-36 and summed as an integer. Integer
addition commutes exactly, so the mean has the same bits for every arrival order and number of
workers, and memory is one int64 vector however many clients report.

Weights are taken relative to the sum enrolled for the cohort, known before the first reply, so
the terms do not depend on who else reports; the mean divides by the weights that did report. A
client that enrolled with far more than the others would so leave them no bits: those far below the
cohort's average weight have a sum of their own, relative to their own weights (`by_magnitude`).
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
    """What one round's changes go into; `add` them as they arrive, then `finish` once."""

    def add(self, client_id: str, change_F: npt.NDArray[np.float32], num_steps: int = 1) -> None:
        """Take a validated change in, made by so many steps; its memory is the caller's.

        Raises:
            UpdateRejected: the rule cannot use it; nothing of it has been taken in.
        """
        ...

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the one change that the model makes (suffix F); at least one was added."""
        ...


Bounded = Callable[[Mapping[str, float], str], Mapping[str, float]]
"""(a number of each client, what they are) -> those that count: see `claims`."""


def all_believed(numbers: Mapping[str, float], what: str) -> Mapping[str, float]:
    """Cut nothing."""
    return numbers


@dataclass(frozen=True)
class Opening:
    """What is known of a round before its first reply."""

    size: int  # F: values of a change
    num_trainable: int  # of these, which come first
    weights: Mapping[str, int]  # of each client that is asked, > 0
    settings: FederationConfig
    scratch: Path | None = None  # a folder for what does not fit in memory; None = the system's
    round: int = 1
    # How many steps each client takes on the images that it enrolled with, and how far so many
    # steps carry a gradient of 1 in this round: see learning.travel.
    steps: Mapping[str, int] = field(default_factory=dict)
    travel: Callable[[int], float] = float
    # What `aggregators.MEASURES_OF` asks for, of each client whose change was added; filled as they
    # arrive.
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bounded: Bounded = all_believed  # cuts what clients tell, of those whose change was added

    def travel_of(self, client_id: str, num_steps: int) -> float:
        """Return how far a client's steps carry a gradient; their number is the client's word.

        Raises:
            UpdateRejected: more steps than its images allow.
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
"""Largest magnitude of one value of an update; the fixed-point range leaves room for the sum."""
_CHUNK = 1 << 15  # values at a time: 256 KiB of float64, so that the passes stay in cache
# Adding 1.5 * 2**52 to a float64 below 2**51 leaves the rounded integer in the low mantissa bits:
# rounding and conversion in one addition. The constant is taken out again in `finish`.
_MAGIC = np.float64(3 << 51)
_MAGIC_BITS = int(np.array(_MAGIC).view(np.int64))


FAR_BELOW = 1 << 8
"""A client of less than the average weight over this is no longer summed with the others."""


def by_magnitude(weights: Mapping[str, int]) -> dict[str, int]:
    """Part the clients whose weights are far apart: the number of each one's sum, 0 the heaviest.

    Within one, every weight is at least 1 / FAR_BELOW of the average there. So the mean of half of
    a cohort is good to 2**-37 * 2 * 2**8 = 4e-9 whatever was enrolled and whoever is silent: the
    step of a float32 of 0.03.

    >>> by_magnitude({"a": 500, "b": 3, "c": 1 << 40})
    {'a': 1, 'b': 1, 'c': 0}
    """
    group: dict[str, int] = {}
    left = dict(weights)
    number = 0
    while left:
        average = sum(left.values()) / len(left)
        heavy = {c for c, weight in left.items() if weight * FAR_BELOW >= average}
        heavy = heavy or set(left)  # weights that are none are refused by `add`
        group |= dict.fromkeys(heavy, number)
        left = {c: weight for c, weight in left.items() if c not in heavy}
        number += 1
    return {c: group[c] for c in weights}


@dataclass
class FixedPointMean:
    """The mean of one round: an `Aggregator`; mostly of one sum."""

    size: int
    weights: Mapping[str, int]  # of the whole cohort
    _group: dict[str, int] = field(init=False, repr=False)
    _sums: dict[int, _Sum] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._group, self._sums = by_magnitude(self.weights), {}
        self._work = np.empty(min(_CHUNK, self.size), dtype=np.float64)

    def add(self, client_id: str, change_F: npt.NDArray[np.float32], num_steps: int = 1) -> None:
        """Fold one validated vector in; |values| <= MAX_VALUE."""
        assert change_F.shape == (self.size,)
        weight, number = self.weights[client_id], self._group[client_id]
        assert weight > 0
        if number not in self._sums:
            total = sum(w for c, w in self.weights.items() if self._group[c] == number)
            self._sums[number] = _Sum(self.size, total, self._work)
        self._sums[number].add(weight, change_F)

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the weighted mean in a sum's own memory, cut to half; the sums are no more."""
        assert self._sums
        first, *others = (self._sums[number] for number in sorted(self._sums))
        weight = sum(part.weight for part in (first, *others))
        mean = first.values.view(np.float32)
        for start in range(0, self.size, _CHUNK):
            stop = min(start + _CHUNK, self.size)
            work = first.part(start, stop, weight, self._work)
            for other in others:
                work += other.part(start, stop, weight, np.empty_like(work))
            # Half as wide, so it never reaches what is still to be read.
            mean[start:stop] = work
        del mean  # the memory may move
        taken, self._sums = first.values, {}
        del first
        taken.resize((self.size + 1) // 2, refcheck=False)
        return taken.view(np.float32)[: self.size]


class _Sum:
    """The sum of those whose weights are of one magnitude."""

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
            np.copyto(work, part)  # multiplied at once, it would be widened in small buffers
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
        """Return values start to stop of this sum's part of a mean over so much weight."""
        # All but one of the constants go, and that one makes the integer a float64 again: exact,
        # because the sum's magnitude is at most MAX_VALUE * 2**36 = 2**50. It wrapped around
        # modulo 2**64, so what is taken out of it is cut to 64 bits in the same way.
        offset = (self.count - 1) * _MAGIC_BITS & (2**64 - 1)
        offset_i8 = np.array(offset, dtype=np.uint64).view(np.int64)
        work = room[: stop - start]
        np.subtract(self.values[start:stop], offset_i8, out=work.view(np.int64))
        np.subtract(work, _MAGIC, out=work)
        unscale = np.float64(self.total_weight / weight * 2.0**-FRACTION_BITS)
        np.multiply(work, unscale, out=work)
        return work
