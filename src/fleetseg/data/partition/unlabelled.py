"""Which clients are declared unlabelled, and which label files are therefore never opened.

The partition is computed from names alone, before any label is read. Labels of frames on which an
unlabelled client is scored are opened only by the store used for scoring.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from fleetseg import rng
from fleetseg.config import PartitionConfig, UnlabelledConfig
from fleetseg.data.partition.assign import partition
from fleetseg.data.partition.holdout import hold_out
from fleetseg.data.partition.manifest import Manifest, is_manifest
from fleetseg.data.sample import Sample, Source
from fleetseg.errors import ConfigError
from fleetseg.text import listing


@dataclass(frozen=True)
class Hidden:
    """Clients declared unlabelled, and the numbers of samples whose labels are not read."""

    clients: frozenset[str] = frozenset()
    to_train: frozenset[int] = frozenset()  # for training: all samples of these clients
    to_score: frozenset[int] = frozenset()  # not even for scores


def hidden_labels(
    config: PartitionConfig, samples: Sequence[Sample], seed: int, *, scores_training: bool
) -> Hidden:
    """Find the labels that must not be read.

    Args:
        config: the partition, and which clients are declared unlabelled.
        samples: all training samples of the fleet; no file is read.
        seed: the experiment's seed.
        scores_training: whether clients are scored on the frames that they train on.

    Raises:
        ConfigError: a pattern that matches no client, or a partition that depends on labels.
        DataError: a split file that is malformed or does not match the samples.
    """
    listed = _listed(config)
    if config.unlabelled == UnlabelledConfig() and not listed:
        return Hidden()
    if config.kind == "dirichlet":
        raise ConfigError(
            "partition.kind = 'dirichlet' assigns images by their labels, but "
            "partition.unlabelled forbids reading some of them",
            cure="Use 'natural' or 'iid', or write the split to a file (fleetseg partition --out)",
        )
    held = partition(config, samples, np.zeros((len(samples), 0), np.int64), seed)
    clients = unlabelled_clients(config.unlabelled, held, seed) | (listed & held.keys())
    split = hold_out(held, samples, config)
    own = {n for client in clients for n in held[client]}
    parts = [split[client] for client in clients]
    scored = {n for part in parts for n in (part.train if scores_training else part.test)}
    return Hidden(clients, frozenset(own), frozenset(own - scored))


def unlabelled_clients(
    rule: UnlabelledConfig, clients: Collection[str], seed: int
) -> frozenset[str]:
    """Return the clients declared unlabelled: by name pattern, or a random share of all.

    >>> sorted(unlabelled_clients(UnlabelledConfig(clients=("car-*",)), ["car-1", "van-1"], 0))
    ['car-1']

    Raises:
        ConfigError: both are set, or a pattern matches no client, so labels would be read.
    """
    if rule.clients and rule.share:
        raise ConfigError(
            "partition.unlabelled.clients and partition.unlabelled.share are both set",
            cure="Set one: patterns of names, or a share drawn at random",
        )
    for pattern in rule.clients:
        if not any(fnmatchcase(client, pattern) for client in clients):
            raise ConfigError(
                "a pattern of unlabelled vehicles matches no vehicle, so labels would be read",
                where="partition.unlabelled.clients",
                got=repr(pattern),
                expected=f"patterns that match some of: {listing(sorted(clients))}",
            )
    drawn = rng.generator(seed, purpose="unlabelled").permutation(sorted(clients))
    by_share = drawn[: round(rule.share * len(drawn))].tolist()
    by_name = {c for c in clients for pattern in rule.clients if fnmatchcase(c, pattern)}
    return frozenset(by_name.union(by_share))


def without_labels(source: Source, first: int, hidden: Collection[int]) -> Source:
    """Return the source, its samples numbered from `first`, without the labels in `hidden`."""
    samples = [
        replace(sample, label=None) if number in hidden else sample
        for number, sample in enumerate(source.samples, first)
    ]
    return replace(source, samples=tuple(samples))


def _listed(config: PartitionConfig) -> frozenset[str]:
    """Return the clients that the manifest declares unlabelled, if the partition is a manifest."""
    path = Path(config.file)
    if config.kind != "file" or not is_manifest(path):
        return frozenset()
    return frozenset(Manifest.read(path).unlabelled)
