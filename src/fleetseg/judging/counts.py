"""Exact counts of one model's predictions, by frame or by vehicle, and of its confidences.

Suffixes: R rows, C classes, B bins. A row is a frame, or all that one vehicle counted in a domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.evaluation.confusion import Conf_CC

Conf_RCC = npt.NDArray[np.int64]
"""A confusion matrix for each row: truth down, prediction across."""
Bins_3B = npt.NDArray[np.int64]
"""For each bin of confidence: pixels, correct pixels, sum of confidences in units of ONE."""

ONE = 1 << 24
"""Confidences are added as multiples of 2^-24, as fine as float32, so that sums are exact."""


@dataclass(frozen=True)
class Row:
    """The subject of one row of counts."""

    name: str  # the frame, or the vehicle
    domain: str
    drive: str = ""  # "" = not known


@dataclass(frozen=True, eq=False)
class Rows:
    """Confusion matrices of one model, one per row."""

    rows: tuple[Row, ...]
    conf_RCC: Conf_RCC

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total_CC(self) -> Conf_CC:
        """The counts of all rows together."""
        total_CC: Conf_CC = self.conf_RCC.sum(axis=0)
        return total_CC

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, sorted."""
        return tuple(sorted({row.domain for row in self.rows}))

    def of_domain(self, domain: str) -> Rows:
        """Return the rows of one domain."""
        chosen = [number for number, row in enumerate(self.rows) if row.domain == domain]
        return Rows(tuple(self.rows[number] for number in chosen), self.conf_RCC[chosen])


@dataclass(frozen=True, eq=False)
class Measured:
    """All counts of one model."""

    clean: Rows
    bins_3B: Bins_3B
    worse: Mapping[tuple[str, int], Rows]  # (kind of corruption, severity) -> some of the frames

    def worse_of(self, kind: str) -> Rows:
        """Return the counts of one kind of corruption, summed over severities row by row."""
        parts = [rows for (name, _), rows in sorted(self.worse.items()) if name == kind]
        return Rows(parts[0].rows, sum_rows([part.conf_RCC for part in parts]))


def sum_rows(parts: Sequence[Conf_RCC]) -> Conf_RCC:
    """Add counts of the same rows."""
    total_RCC: Conf_RCC = np.sum(np.stack(parts), axis=0)
    return total_RCC


def joined(parts: Sequence[Measured]) -> Measured:
    """Concatenate the measurements of several vehicles; bins are added."""
    return Measured(
        _below([part.clean for part in parts]),
        np.sum(np.stack([part.bins_3B for part in parts]), axis=0),
        {key: _below([part.worse[key] for part in parts]) for key in parts[0].worse},
    )


def _below(parts: Sequence[Rows]) -> Rows:
    rows = tuple(row for part in parts for row in part.rows)
    return Rows(rows, np.concatenate([part.conf_RCC for part in parts]))


def by_domain_only(rows: Rows, name: str) -> Rows:
    """Sum the rows of each domain, under the vehicle's name: these counts may leave a vehicle."""
    confs = [rows.of_domain(domain).total_CC for domain in rows.domains]
    return Rows(tuple(Row(name, domain) for domain in rows.domains), np.stack(confs))
