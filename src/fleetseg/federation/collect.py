"""One round's replies: each checked whole, then folded or counted as a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import FixedPointMean
from fleetseg.federation.checks import validate_update
from fleetseg.federation.messages import Enrolment, Failure, FailureKind, Update
from fleetseg.federation.tensors import Layout, ModelState

WeightBy = Literal["images", "pixels", "uniform"]


@dataclass(frozen=True)
class Accepted:
    """What is remembered of an update once it is folded."""

    client_id: str
    num_steps: int
    images_seen: int
    loss: float
    wire_bytes: int  # of its message; 0 = as large as any


class RoundCollector:
    """Folds the replies of one round after another; memory does not grow with the cohort."""

    def __init__(self, layout: Layout, weight_by: WeightBy, max_norm: float) -> None:
        self.layout = layout
        self._weight_by = weight_by
        self._max_norm = max_norm

    def open(
        self,
        round_: int,
        cohort: Sequence[str],
        enrolled: Mapping[str, Enrolment],
        base: ModelState,
    ) -> None:
        """Start a round."""
        self._round = round_
        self._base = base
        self._enrolled = {client: enrolled[client] for client in cohort}
        weight = max(1, sum(self._weight(e) for e in self._enrolled.values()))
        self._mean = FixedPointMean(self.layout.num_floats, weight)
        self.counters_K: Tensor = base.counters_K.clone()
        self._waiting = set(cohort)
        self.taken: list[Accepted] = []
        self.failures: list[Failure] = []

    def take(self, reply: Update | Failure) -> Failure | None:
        """Fold an update in, or note why not; returns the failure, if it is one."""
        if isinstance(reply, Failure):
            if reply.client_id not in self._waiting:
                reply = Failure(
                    reply.client_id, "refused", "unasked", "answered before, or not asked"
                )
            self._waiting.discard(reply.client_id)
            return self._fail(reply)
        try:
            self._fold(reply)
        except UpdateRejected as rejected:
            # Cut, because the text quotes what the client sent.
            detail = str(rejected)[:500]
            return self._fail(Failure(reply.client_id, "refused", rejected.reason, detail))
        return None

    def close(self, *, enough: bool = False) -> None:
        """Note the clients that have not answered; from here on every reply is refused.

        With `enough`, nobody waited for them: as many as were wanted came before.
        """
        for client in sorted(self._waiting):
            gone = Failure(client, "late", "surplus") if enough else None
            self._fail(gone or Failure(client, "lost", "no-answer"))
        self._waiting = set()

    def take_mean_delta(self) -> npt.NDArray[np.float32]:
        """The weighted mean change, once; needs at least one taken update."""
        return self._mean.take_mean()

    def failed(self, kind: FailureKind) -> int:
        """Number of failures of one kind."""
        return Counter(f.kind for f in self.failures)[kind]

    def mean_loss(self) -> float | None:
        """Mean training loss, clients weighted by their steps; None if nothing was taken."""
        steps = sum(t.num_steps for t in self.taken)
        # Sorted, so that the float sum does not depend on who answered first.
        ordered = sorted(self.taken, key=lambda t: t.client_id)
        return sum(t.loss * t.num_steps for t in ordered) / steps if steps else None

    def _fail(self, failure: Failure) -> Failure:
        self.failures.append(failure)
        return failure

    def _weight(self, source: Enrolment | Update) -> int:
        if self._weight_by == "uniform":
            return 1
        return source.num_images if self._weight_by == "images" else source.num_pixels

    def _fold(self, update: Update) -> None:
        if update.client_id not in self._waiting:
            raise UpdateRejected("unasked", "not asked, or answered before", got=update.client_id)
        self._waiting.discard(update.client_id)
        validate_update(
            update,
            layout=self.layout,
            base=self._base,
            round_=self._round,
            enrolled=self._enrolled[update.client_id],
            max_norm=self._max_norm,
        )
        self._mean.add(update.change.values_F.numpy(), self._weight(update))
        torch.maximum(self.counters_K, update.change.counters_K, out=self.counters_K)
        self.taken.append(
            Accepted(
                update.client_id,
                update.num_steps,
                update.images_seen,
                update.loss,
                update.wire_bytes,
            )
        )
