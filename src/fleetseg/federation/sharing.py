"""Which part of a model the fleet shares, and what else a method exchanges.

A sharing policy is a predicate over `Entry` in `SHARING`: it selects the tensors that are
exchanged. The others stay with each client, which trains them and keeps them for the next round.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.errors import ConfigError, ModelError
from fleetseg.federation.tensors import Entry, Layout, ModelState, Part
from fleetseg.learning.fedfa import FEATURES, SPREAD
from fleetseg.learning.parts import learns
from fleetseg.text import listing

_NOTHING = Layout((), ())
Policy = Callable[[Entry, FederationConfig], bool]


def _in_stages(entry: Entry, settings: FederationConfig) -> bool:
    return any(is_within(entry.key, stage) for stage in settings.stages)


def silobn(entry: Entry, settings: FederationConfig) -> bool:
    """Keep running statistics of norm layers local; gains and biases are shared.

    Andreux, Ogier du Terrail, Beguier, Tramel 2020, arXiv 2008.07424.
    """
    return entry.kind == "trainable" or not entry.in_norm


def fedbn(entry: Entry, settings: FederationConfig) -> bool:
    """Keep whole norm layers local: statistics, gains and biases.

    Li, Jiang, Zhang, Kamp, Dou 2021, arXiv 2102.07623.
    """
    return not entry.in_norm


SHARING: dict[str, Policy] = {
    "all": lambda entry, settings: True,
    "body": lambda entry, settings: not entry.in_head,  # FedPer, FedRep, FedBABU
    "head": lambda entry, settings: entry.in_head,
    "stages": _in_stages,
    "trained": lambda entry, settings: not entry.is_frozen,
    "silobn": silobn,
    "fedbn": fedbn,
}
OWN_STATISTICS = ("silobn", "fedbn")
"""Policies that keep tensors of norm layers, including running statistics, with the clients."""


def is_within(key: str, stage: str) -> bool:
    """Return whether a state-dict key belongs to a module that an experiment names.

    >>> is_within("net.encoder.0.weight", "encoder"), is_within("net.encoder2.weight", "encoder")
    (True, False)
    """
    return key.startswith((f"{stage}.", f"net.{stage}."))


@dataclass(frozen=True)
class Exchange:
    """The layouts of a run: of the network, of what the server holds, and of what is sent."""

    model: Layout
    shared: Layout  # the part of the model that is sent, up and down
    kept: Layout  # the part that stays with each client
    # Vectors sent with the model, each as long as its trainables: both ways, and down only.
    extras: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    # Sizes of the statistics of features that are sent with it, if any: see `feature_statistics`.
    features: tuple[tuple[str, int], ...] = ()
    references: tuple[str, ...] = ()  # further models, down only: see `references`
    # The part of `shared` that each cluster of vehicles has of its own, and how many more copies of
    # it are sent down with a model: see `cluster_parts`.
    clustered: Layout = _NOTHING
    copies: int = 0

    @classmethod
    def of(
        cls,
        model: Layout,
        settings: FederationConfig = FederationConfig(),  # noqa: B008 (frozen)
        extras: Sequence[str] = (),
        told: Sequence[str] = (),
        references: Sequence[str] = (),
        features: Mapping[str, int] = MappingProxyType({}),
    ) -> Exchange:
        """Divide a model by the policy `settings.sharing`.

        Raises:
            ModelError: the policy shares nothing that learns, or keeps nothing local.
            ConfigError: a stage that the network does not have.
        """
        policy = SHARING[settings.sharing]
        require_stages(model, settings.stages, "federation.stages")
        shared = model.only(lambda entry: policy(entry, settings))
        if not shared.num_trainable:
            raise ModelError(
                "nothing that learns would be shared",
                where=f"federation.sharing = '{settings.sharing}'",
                cure="Choose a policy that shares some of this network's parameters",
            )
        kept = model.only(lambda entry: not policy(entry, settings))
        if settings.sharing != "all" and not kept.by_key:
            raise ModelError(
                "nothing of this network stays with the clients, as with 'all'",
                where=f"federation.sharing = '{settings.sharing}'",
                cure="Share 'all', or say what its head is (wrap(net, num_classes, "
                "head_prefixes=[...])) or what never learns (model.adapter_rank)",
            )
        vectors = tuple(extras), tuple(told), tuple(features.items())
        return cls(model, shared, kept, *vectors, tuple(references))

    @cached_property
    def server(self) -> Layout:
        """Layout of what the server holds: the whole model and the extras."""
        return self._with_vectors(self.model)

    @cached_property
    def wire(self) -> Layout:
        """Layout of what is exchanged: the shared part and the extras."""
        return self._with_vectors(self.shared)

    def _with_vectors(self, model: Layout) -> Layout:
        """Append what is sent beside a model: first what goes both ways, then what only down."""
        features = dict(self.features)
        both_ways = model.with_extras(self.extras).with_vector(FEATURES, features)
        return both_ways.with_extras(self.told).with_vector(SPREAD, features)

    @cached_property
    def down(self) -> Layout:
        """Layout of a broadcast for training.

        Reference models follow the exchanged model; the tensors that clients choose from come last.
        """
        return self.wire.with_references(self.references).with_copies(self.clustered, self.copies)

    def sent_by(self, task: str) -> Layout:
        """Return the layout of a task's broadcast: only for training is there more than a model."""
        return self.down if task == "train" else self.wire

    def cut(self, state: ModelState, task: str) -> ModelState:
        """Cut memory for the largest broadcast to the size of a task's broadcast."""
        return _head(state, self.sent_by(task))

    @cached_property
    def common(self) -> Layout:
        """Layout of the part common to the whole fleet: everything, unless there are clusters."""
        if not self.is_clustered:
            return self.wire
        return self.wire.only(lambda entry: entry.key not in self.clustered.by_key)

    @property
    def is_clustered(self) -> bool:
        """Whether clusters of vehicles have tensors of their own."""
        return bool(self.clustered.floats)

    @cached_property
    def up(self) -> Layout:
        """Layout of what clients send: the same, without the down-only vectors, which come last."""
        return self.wire.without_extras(only_down(self.wire, self.told))

    @property
    def shares_all(self) -> bool:
        """Whether no part of the model stays with the clients."""
        return not (self.kept.floats or self.kept.counters)

    def untrained(self, training: TrainingConfig) -> tuple[str, ...]:
        """Return keys that clients train and keep: the server has only their initial values."""
        kept = (*self.kept.floats, *self.kept.counters)
        parts = {e.key: "head" if e.in_head else "body" for e in kept if not e.is_frozen}
        return tuple(key for key, part in parts.items() if learns(part, training))

    def learns_together(self, training: TrainingConfig) -> bool:
        """Return whether clients train any of the exchanged weights."""
        weights = [e for e in self.shared.floats if e.kind == "trainable" and not e.is_frozen]
        parts = {"head" if e.in_head else "body" for e in weights}
        return any(learns(part, training) for part in parts)

    def learns_apart(self, training: TrainingConfig) -> bool:
        """Return whether clients train any weights that stay with them, norm layers aside."""
        entries = (self.model.by_key[key] for key in self.untrained(training))
        return any(e.kind == "trainable" and not e.in_norm for e in entries)

    def first(self, model: ModelState) -> ModelState:
        """Make the server's initial state: extras start at zero."""
        if not self.server.spans:
            return model
        state = self.server.empty()
        state.values_F.zero_()
        Part.of(self.server, self.model).put(model, state)
        return state

    def model_of(self, server: ModelState) -> ModelState:
        """Return the model within what the server holds, without copying values."""
        return _head(server, self.model)

    def shared_of(self, wire: ModelState) -> ModelState:
        """Return the shared part of the model within what was sent, without copying values."""
        return _head(wire, self.shared)

    def up_of(self, wire: ModelState) -> ModelState:
        """Return the part of what was sent that clients change, without copying values."""
        return _head(wire, self.up)

    def sent(self, server: ModelState) -> ModelState:
        """Return the part that is sent of what the server holds; not copied if it is everything."""
        if self.shares_all:
            return server
        state = self.wire.empty()
        self._wire_part.take(server, state)
        return state

    def with_references(self, wire: ModelState, models: Mapping[str, Tensor]) -> ModelState:
        """Append reference models, flat and of the shared part; returns `wire` if there are none.

        A missing model is replaced by the exchanged one.
        """
        if not self.references:
            return wire
        own_F = self.shared_of(wire).values_F
        parts = [models.get(name, own_F) for name in self.references]
        return ModelState(torch.cat([wire.values_F, *parts]), wire.counters_K)

    def references_of(self, down: ModelState) -> dict[str, ModelState]:
        """Return the reference models within what was sent, without copying values.

        A broadcast that is only scored has none: see `sent_by`.
        """
        start, size = self.wire.num_floats, self.shared.num_floats
        if len(down.values_F) == start:
            return {}
        return {
            name: ModelState(down.values_F[start + k * size :][:size], down.counters_K)
            for k, name in enumerate(self.references)
        }

    def to_score(self, model: ModelState) -> ModelState:
        """Return what is sent of a model to score; its extras are zero."""
        return self.sent(self.first(model))

    def to_try(self, model: ModelState) -> ModelState:
        """Return what is sent of a model to train from, with its own tensors for every cluster."""
        sent = self.with_references(self.to_score(model), {})
        own = self.clustered.empty()
        Part.of(self.wire, self.clustered).take(sent, own)
        values = [sent.values_F, *[own.values_F] * self.copies]
        counters = [sent.counters_K, *[own.counters_K] * self.copies]
        return ModelState(torch.cat(values), torch.cat(counters)) if self.copies else sent

    def received(self, server: ModelState, wire: ModelState) -> ModelState:
        """Return the server's state with the exchanged part replaced; arguments do not change."""
        if self.shares_all:
            return wire
        state = server.clone()
        self._wire_part.put(wire, state)
        return state

    @cached_property
    def _wire_part(self) -> Part:
        return Part.of(self.server, self.wire)


def require_stages(model: Layout, stages: Sequence[str], where: str) -> None:
    """Refuse stages that a network does not have, suggesting the nearest names."""
    keys = [key.removeprefix("net.") for key in model.by_key]
    for stage in stages:
        if any(is_within(key, stage) for key in model.by_key):
            continue
        modules = {key[:dot] for key in keys for dot, letter in enumerate(key) if letter == "."}
        near = difflib.get_close_matches(stage.removeprefix("net."), sorted(modules))
        outermost = sorted({key.partition(".")[0] for key in keys})
        raise ConfigError(
            f"the network has no stage '{stage}'",
            where=where,
            expected=f"modules such as {listing(outermost, 10)}",
            cure=f"Did you mean {' or '.join(map(repr, near))}?" if near else None,
        )


def only_down(wire: Layout, told: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all vectors that are not sent up; `told` are the objective's."""
    return (*told, SPREAD) if SPREAD in wire.spans else tuple(told)


def _head(state: ModelState, layout: Layout) -> ModelState:
    """Cut off extras and copies, which come last; without any, return the state itself."""
    if (len(state.values_F), len(state.counters_K)) == (layout.num_floats, layout.num_counters):
        return state
    values_F = state.values_F[: layout.num_floats]
    return ModelState(values_F, state.counters_K[: layout.num_counters])
