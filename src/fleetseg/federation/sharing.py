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
SHARING: dict[str, Policy] = {"all": lambda entry, settings: True}


@dataclass(frozen=True)
class Exchange:
    """The layouts of one run: of the network, of what the server holds, of what is sent."""

    model: Layout
    shared: Layout  # the part of the model that is sent, up and down
    kept: Layout  # the part that stays with each client
    # What is sent beside the model, each as long as its trainables: down and up, and down only.
    extras: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: Layout,
        settings: FederationConfig = FederationConfig(),  # noqa: B008 (frozen)
        extras: Sequence[str] = (),
        told: Sequence[str] = (),
    ) -> Exchange:
        """Divide a model by the policy `settings.sharing`.

        Raises:
            ModelError: the policy shares nothing that learns.
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
        return cls(model, shared, kept, tuple(extras), tuple(told))

    @cached_property
    def server(self) -> Layout:
        """What the server holds: the whole model and its extras."""
        return self.model.with_extras((*self.extras, *self.told))

    @cached_property
    def wire(self) -> Layout:
        """What is sent to clients: the shared part and its extras."""
        return self.shared.with_extras((*self.extras, *self.told))

    @cached_property
    def up(self) -> Layout:
        """What clients send: the same, without what they are only told, which comes last."""
        return self.wire.without_extras(self.told)

    @property
    def shares_all(self) -> bool:
        """Whether nothing of the model stays with the clients."""
        return not (self.kept.floats or self.kept.counters)

    def first(self, model: ModelState) -> ModelState:
        """Make what the server holds before the first round: extras start at zero."""
        if not self.extras and not self.told:
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

    def up_of(self, wire: ModelState) -> ModelState:
        """Return the part of what was sent that clients change; its values are not copied."""
        return _head(wire, self.up)

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
