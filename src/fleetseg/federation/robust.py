"""Aggregation rules that need all changes of a round at once.

A rule is a pure function; `spooled` makes an aggregator of it that writes changes to a file as they
arrive, one row for each client in order of their names, so that memory does not grow with the
cohort and the order of arrival does not matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fleetseg.federation.aggregate import Aggregator, Opening

Floats = npt.NDArray[np.float32]
Rule = Callable[[Floats, npt.NDArray[np.int64]], Floats]
"""(changes_NF, weights_N) -> the one change (F); N clients, in order of their names."""


def spooled(rule: Rule) -> Callable[[Opening], Aggregator]:
    """Make a factory of aggregators of a rule."""
    return lambda opening: _Spool(opening, rule)


class _Spool:
    def __init__(self, opening: Opening, rule: Rule) -> None:
        self._opening, self._rule = opening, rule
        self._rows = {client: row for row, client in enumerate(sorted(opening.weights))}
        self._added: set[str] = set()
        # It has no name: it is gone with this process, however that ends.
        self._file = tempfile.TemporaryFile(dir=opening.scratch)  # noqa: SIM115

    def add(self, client_id: str, change_F: Floats) -> None:
        """See Aggregator."""
        assert change_F.shape == (self._opening.size,)
        self._file.seek(self._rows[client_id] * change_F.nbytes)
        self._file.write(np.ascontiguousarray(change_F).data)
        self._added.add(client_id)

    def finish(self) -> Floats:
        """See Aggregator."""
        clients = sorted(self._added)
        weights_N = np.array([self._opening.weights[c] for c in clients], dtype=np.int64)
        self._file.flush()
        with self._file:
            shape = (max(self._rows[c] for c in clients) + 1, self._opening.size)
            rows_MF = np.memmap(self._file, dtype=np.float32, mode="r", shape=shape)
            changes_NF = rows_MF[[self._rows[c] for c in clients]]
            result_F = self._rule(changes_NF, weights_N)
        assert result_F.shape == (self._opening.size,)
        return np.array(result_F, dtype=np.float32)
