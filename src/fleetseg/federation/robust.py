"""Support for aggregation rules that need all changes of a round at once.

A rule is a pure function; `spooled` turns it into an aggregator that writes changes to a file as
they arrive, one row per client in order of their names. So the order of arrival does not matter,
and a rule that reads a few columns at a time needs no more memory for a larger cohort.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fleetseg.config import FederationConfig
from fleetseg.federation.aggregate import Aggregator, Opening

Floats = npt.NDArray[np.float32]
Rule = Callable[[Floats, npt.NDArray[np.int64], FederationConfig], Floats]
"""(changes_NF, a memory-mapped file; weights_N; settings) -> the aggregated change (F).

N clients, in order of their names.
"""


def spooled(rule: Rule) -> Callable[[Opening], Aggregator]:
    """Make a factory of aggregators from a rule."""
    return lambda opening: _Spool(opening, rule)


class _Spool:
    def __init__(self, opening: Opening, rule: Rule) -> None:
        self._opening, self._rule = opening, rule
        self._rows = {client: row for row, client in enumerate(sorted(opening.weights))}
        self._added: set[str] = set()
        # Unnamed, so that it disappears with this process, however that ends. `finish` closes it;
        # if nobody was asked or too few answered, it is closed with this object.
        self._file = tempfile.TemporaryFile(dir=opening.scratch)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, client_id: str, change_F: Floats, num_steps: int = 1) -> None:
        """See Aggregator."""
        assert change_F.shape == (self._opening.size,)
        self._file.seek(self._rows[client_id] * change_F.nbytes)
        self._file.write(np.ascontiguousarray(change_F).data)
        self._added.add(client_id)

    def finish(self) -> Floats:
        """See Aggregator."""
        clients, size = sorted(self._added), self._opening.size
        weights_N = np.array([self._opening.weights[c] for c in clients], dtype=np.int64)
        with self._file:
            for row, client in enumerate(clients):
                self._move(self._rows[client], row)  # over the rows of clients that did not answer
            self._file.flush()
            shape = (len(clients), size)
            changes_NF: Floats = np.memmap(self._file, dtype=np.float32, mode="r", shape=shape)
            result_F = self._rule(changes_NF, weights_N, self._opening.settings)
            assert result_F.shape == (size,)
            return np.array(result_F, dtype=np.float32)

    def _move(self, from_row: int, to_row: int) -> None:
        if from_row != to_row:
            num_bytes = 4 * self._opening.size
            self._file.seek(from_row * num_bytes)
            row = self._file.read(num_bytes)
            self._file.seek(to_row * num_bytes)
            self._file.write(row)
