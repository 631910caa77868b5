"""A client, and what a process trains with; `tasks` has what a client can be asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from fleetseg.config import Experiment
from fleetseg.data.sample import Pairs, ScoredPairs
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.downlink import ChangeCodec
from fleetseg.federation.messages import Broadcast, Enrolment
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, ModelTensors
from fleetseg.federation.wire import UpdateCodec, message_bytes
from fleetseg.learning.feature_distance import FeatureDistance
from fleetseg.learning.hardware import Hardware
from fleetseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class Client:
    """A holder of private samples, as seen from its own side."""

    enrolment: Enrolment
    train: Pairs
    # Scored when the server asks: held-out frames; with `evaluation.on_clients` and nothing held
    # out, the training frames; empty if there are none.
    test: ScoredPairs = field(default_factory=ScoredPairs)
    train_domains: frozenset[str] | None = None  # of the training samples; None if not known
    labelled: tuple[int, ...] | None = None  # train ids in its labels; None = all classes

    @property
    def id(self) -> str:
        """The client's name."""
        return self.enrolment.client_id


@dataclass(frozen=True)
class LocalRuntime:
    """What a process trains with: its scratch model is overwritten by every client's work."""

    model: Segmenter
    exchange: Exchange
    experiment: Experiment
    hardware: Hardware
    num_classes: int
    memory: ClientStateStore | None = None  # where clients keep state between rounds, if any
    codec: UpdateCodec | None = None  # None = updates are handed over as they are
    changes: ChangeCodec | None = None  # codec of broadcasts; None = they are sent whole
    # Initial values of the tensors that stay with clients; None = no tensors do.
    start: ModelState | None = None
    distance: FeatureDistance | None = None  # a term of the loss, with an encoder of its own
    room: ModelState | None = None  # where changes are written; None = new memory for each
    source: Pairs | None = None  # labelled samples of the server that every client carries

    @cached_property
    def whole(self) -> ModelTensors:
        """All of the model's tensors."""
        return ModelTensors(self.model, self.exchange.model)

    @cached_property
    def shared(self) -> ModelTensors:
        """The model's tensors that are exchanged."""
        return ModelTensors(self.model, self.exchange.shared)

    @cached_property
    def kept(self) -> ModelTensors:
        """The model's tensors that stay with each client."""
        return ModelTensors(self.model, self.exchange.kept)

    @cached_property
    def message_bytes(self) -> tuple[int, int]:
        """Encoded size of a broadcast, and the largest of an update."""
        down, up = message_bytes(self.exchange.down, self.exchange.up)
        return down, self.codec.max_bytes if self.codec else up

    def bytes_of(self, broadcast: Broadcast) -> int:
        """Encoded size of a broadcast; if it is not for training, it holds one model only."""
        is_whole = broadcast.state.values_F.numel() == self.exchange.down.num_floats
        return broadcast.num_bytes(self.message_bytes[0] if is_whole else self._model_bytes)

    @cached_property
    def _model_bytes(self) -> int:
        return message_bytes(self.exchange.wire, self.exchange.up)[0]

    def load(self, broadcast: Broadcast, own: Mapping[str, Tensor]) -> None:
        """Load a broadcast into the model, and the client's own tensors if any stay here."""
        self.shared.load(self.exchange.shared_of(broadcast.state))
        if self.start is None:
            return
        kept = self.start
        if own:
            kept = ModelState(own["values"], own["counters"])
        self.kept.load(kept)
