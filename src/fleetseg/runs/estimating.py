"""Batch-norm statistics, estimated anew on the clients before a model is scored or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.predict import evaluating, forward
from fleetseg.federation.checks import validate_norm_report
from fleetseg.federation.claims import Claims
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.collect import collect
from fleetseg.federation.counted import to_each
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.messages import (
    Broadcast,
    Enrolment,
    Failure,
    NormReport,
    taking_part,
)
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.models.norm_statistics import (
    NormSumming,
    NormSums,
    channels_of,
    gather,
    put_statistics,
    statistics_of,
)
from fleetseg.text import listing


class Estimator:
    """Asks all clients for a model's batch-norm statistics and gives it the combined ones.

    `claims` caps the number of images that a client counts for.
    """

    def __init__(self, runtime: LocalRuntime, engine: Engine, claims: Claims) -> None:
        self._runtime, self._engine, self._claims = runtime, engine, claims
        self._newest: tuple[int, ModelState] | None = None
        self._missing: list[str] = []  # from the newest estimate

    def newest(self, round_: int) -> ModelState | None:
        """Return the estimated model of a round if it was the last one estimated."""
        return self._newest[1] if self._newest and self._newest[0] == round_ else None

    def notes(self) -> list[str]:
        """Name the clients whose images are missing from the newest model's statistics."""
        return [f"norm statistics are without {listing(self._missing)}"] if self._missing else []

    def __call__(
        self, model: ModelState, round_: int, records: Sequence[RoundRecord]
    ) -> ModelState:
        """Return a round's model with estimated statistics, or unchanged if no client answers."""
        if (made := self.newest(round_)) is not None:
            return made
        exchange, channels_L = self._runtime.exchange, channels_of(self._runtime.model)
        if not len(channels_L):
            return model  # without batch norms there is nothing to ask for
        asked = taking_part(self._engine.available())
        asks = to_each(Broadcast(round_, exchange.to_score(model)), asked, records)
        believed = self._claims.believed(asked)
        sums = _Sums(asked, believed, round_, self._one_image(), channels_L)
        deadline_s = self._runtime.experiment.federation.deadline_s
        collect(self._engine, "norm_statistics", asks, sums, deadline_s=deadline_s)
        self._missing = sorted(asked.keys() - sums.answered)
        self._runtime.whole.load(model)
        put_statistics(self._runtime.model, statistics_of(self._runtime.model, sums.total))
        made = exchange.model.empty()
        self._runtime.whole.read(made)
        self._newest = round_, made
        return made

    def _one_image(self) -> NormSums:
        """Count what one image gives each layer; all client images have the working size."""
        runtime, (height, width) = self._runtime, self._runtime.experiment.data.size
        black_NHWC = np.zeros((1, height, width, 3), np.uint8)
        device, context = runtime.hardware.device, runtime.hardware.inference
        with evaluating(runtime.model):
            return gather(
                runtime.model,
                [lambda: forward(runtime.model, black_NHWC, device=device, context=context)],
                lone=True,
            )


@dataclass
class _Sums:
    """Sums validated replies of clients; the result has the same bits in any order."""

    asked: Mapping[str, Enrolment]
    believed: Mapping[str, Enrolment]  # what each counts for: see federation.claims
    round_: int
    one_image: NormSums
    channels_L: np.ndarray
    answered: set[str] = field(default_factory=set)
    is_full = False

    def __post_init__(self) -> None:
        self._summing = NormSumming(len(self.channels_L), int(self.channels_L.sum()))

    @property
    def total(self) -> NormSums:
        """The sum of all accepted replies."""
        return self._summing.total

    def add(self, reply: Received) -> Failure | None:
        """See Collector."""
        if isinstance(reply, Failure):
            return reply
        try:
            if not isinstance(reply, NormReport) or reply.client_id in self.answered:
                raise UpdateRejected("unasked", "no sums of norm layers, or a second reply")
            validate_norm_report(
                reply,
                round_=self.round_,
                counts_L=self.one_image.counts_L * self.asked[reply.client_id].num_images,
                channels_L=self.channels_L,
            )
        except UpdateRejected as rejected:
            return Failure.refused(reply.client_id, rejected)
        self.answered.add(reply.client_id)
        said, counted = (of[reply.client_id].num_images for of in (self.asked, self.believed))
        self._summing.add(_of_fewer(reply.sums, said, counted))
        return None


def _of_fewer(sums: NormSums, images: int, counted: int) -> NormSums:
    """Scale the sums of so many images to fewer images with the same means."""
    if counted == images:
        return sums
    share = counted / images
    counts_L = sums.counts_L // images * counted  # each image gives a layer as many
    return NormSums(counts_L, sums.sums_C * share, sums.squares_C * share)
