"""What of a model the fleet shares, and what else a method exchanges with it.

A sharing policy is a predicate over `Entry` in `SHARING`: it keeps what is exchanged. The rest
stays with each client, which trains it and keeps it for the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fleetseg.config import FederationConfig
from fleetseg.errors import ModelError
from fleetseg.federation.tensors import Entry, Layout, ModelState, Part

Policy = Callable[[Entry, FederationConfig], bool]


def silobn(entry: Entry, settings: FederationConfig) -> bool:
    """Keep what norm layers keep of the batches they have seen; gains and biases are shared.

    Andreux, Ogier du Terrail, Beguier, Tramel 2020, arXiv 2008.07424.
    """
    return entry.kind == "trainable" or not entry.in_norm


def fedbn(entry: Entry, settings: FederationConfig) -> bool:
    """Keep norm layers whole: statistics, gains and biases.

    Li, Jiang, Zhang, Kamp, Dou 2021, arXiv 2102.07623.
    """
    return not entry.in_norm


SHARING: dict[str, Policy] = {
    "all": lambda entry, settings: True,
    "silobn": silobn,
    "fedbn": fedbn,
}


@dataclass(frozen=True)
class Exchange:
    """The layouts of one run: of the network, of what the server holds, of what is sent."""

    model: Layout
    shared: Layout  # the part of the model that is sent, up and down
    kept: Layout  # the part that stays with each client
    extras: tuple[str, ...] = ()  # what is sent beside the model, each as long as its trainables

    @classmethod
    def of(
        cls,
        model: Layout,
        settings: FederationConfig = FederationConfig(),  # noqa: B008 (frozen)
        extras: Sequence[str] = (),
    ) -> Exchange:
        """Divide a model by the policy `settings.sharing`.

        Raises:
            ModelError: the policy shares nothing that learns, or has nothing to keep.
        """
        policy = SHARING[settings.sharing]
        shared = model.only(lambda entry: policy(entry, settings))
        if not shared.num_trainable:
            raise ModelError(
                "nothing that learns would be shared",
                where=f"federation.sharing = '{settings.sharing}'",
                cure="Choose a policy that shares some of this network's parameters",
            )
        kept = model.only(lambda entry: not policy(entry, settings))
        if settings.sharing != "all" and not (kept.floats or kept.counters):
            raise ModelError(
                "nothing of this network would stay with its client",
                where=f"federation.sharing = '{settings.sharing}'",
                cure="Use federation.sharing = 'all', which it would be",
            )
        return cls(model, shared, kept, tuple(extras))

    @cached_property
    def server(self) -> Layout:
        """What the server holds: the whole model and its extras."""
        return self.model.with_extras(self.extras)

    @cached_property
    def wire(self) -> Layout:
        """What is sent: the shared part and its extras."""
        return self.shared.with_extras(self.extras)

    @property
    def shares_all(self) -> bool:
        """Whether nothing of the model stays with the clients."""
        return not (self.kept.floats or self.kept.counters)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Keys of what stays with each client: the server has nothing but its start values."""
        return tuple(e.key for e in (*self.kept.floats, *self.kept.counters))

    def first(self, model: ModelState) -> ModelState:
        """Make what the server holds before the first round: extras start at zero."""
        if not self.extras:
            return model
        state = self.server.empty()
        state.values_F.zero_()
        Part.of(self.server, self.model).put(model, state)
        return state

    def model_of(self, server: ModelState) -> ModelState:
        """Return the model in what the server holds; its values are not copied."""
        return _head(server, self.model)

    def shared_of(self, wire: ModelState) -> ModelState:
        """Return the part of the model in what was sent; its values are not copied."""
        return _head(wire, self.shared)

    def sent(self, server: ModelState) -> ModelState:
        """Return what is sent of what the server holds; not copied if that is all."""
        if self.shares_all:
            return server
        state = self.wire.empty()
        self._wire_part.take(server, state)
        return state

    def to_score(self, model: ModelState) -> ModelState:
        """Return what is sent of a model that is to be scored: nothing beside the model."""
        return self.sent(self.first(model))

    def received(self, server: ModelState, wire: ModelState) -> ModelState:
        """Return what the server holds with what was exchanged in its place; nothing is changed."""
        if self.shares_all:
            return wire
        state = server.clone()
        self._wire_part.put(wire, state)
        return state

    @cached_property
    def _wire_part(self) -> Part:
        return Part.of(self.server, self.wire)


def _head(state: ModelState, layout: Layout) -> ModelState:
    """Leave extras out, which come last."""
    return ModelState(state.values_F[: layout.num_floats], state.counters_K)
