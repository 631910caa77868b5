"""Rules that assign every image of a scenario to exactly one client.

A rule is a function in `RULES`: (images, settings) -> client -> numbers of its samples. It depends
on the samples and the seed, not on the order of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.config import PartitionConfig
from fleetseg.data.labels import LabelSpace
from fleetseg.data.partition.assign import in_time_order, ordinal, partition, rebalance
from fleetseg.data.partition.kmeans import kmeans
from fleetseg.data.sample import Sample
from fleetseg.errors import ConfigError

Held = dict[str, tuple[int, ...]]
"""Client -> numbers of its samples."""


@dataclass(frozen=True)
class RuleSettings:
    """A scenario's settings for its rule."""

    clients: int
    alpha: float = 0.1  # Dirichlet concentration; small = skewed
    clusters: int = 10  # of embeddings
    min_size: int = 2  # fewest images of a client, for rules that draw
    seed: int = 0


@dataclass(frozen=True)
class Images:
    """All images of a scenario, and the data that its rule needs; the other arrays are empty."""

    samples: Sequence[Sample]
    space: LabelSpace
    histograms_NC: npt.NDArray[np.int64]  # pixels per image and class
    features_ND: npt.NDArray[np.float32]  # of a pretrained encoder


@dataclass(frozen=True)
class Rule:
    """How clients get their images, and which data that requires."""

    about: str
    held: Callable[[Images, RuleSettings], Held]
    needs: Literal["", "labels", "features"] = ""
    labels_classes: bool = False  # each client labels one class: the first part of its name


def _uniform(images: Images, settings: RuleSettings) -> Held:
    _require_enough(len(images.samples), settings.clients, 1)
    config = PartitionConfig(kind="iid", clients=settings.clients)
    return partition(config, images.samples, images.histograms_NC, settings.seed)


def _heterogeneous(images: Images, settings: RuleSettings) -> Held:
    """Shuffle and cut each domain; numbers of clients per domain differ by at most one."""
    groups: dict[str, list[int]] = {}
    for number in in_time_order(images.samples):
        groups.setdefault(images.samples[number].domain, []).append(number)
    return _cut_groups(groups, settings, "domain")


def _class_imbalance(images: Images, settings: RuleSettings) -> Held:
    """Divide classes among clients by their pixels: the partition `dirichlet`."""
    _require_enough(len(images.samples), settings.clients, settings.min_size)
    config = PartitionConfig(
        kind="dirichlet",
        clients=settings.clients,
        alpha=settings.alpha,
        min_size=settings.min_size,
    )
    return partition(config, images.samples, images.histograms_NC, settings.seed)


def _classes(images: Images, settings: RuleSettings) -> Held:
    """Assign each image to one class, then divide each class's images among clients.

    FedSeg (Miao et al., CVPR 2023) published its sets but not how they were made. On Cityscapes
    they hold 156 images of each class except trains (142) and cars (181), each of the 2975 images
    once; 156 is 2975 / 19. So here classes choose images, the rarest first: each takes up to N / C
    of the images that show it. A remaining image goes to the commonest class that it shows.
    """
    order = in_time_order(images.samples)
    shows_NC = np.asarray(images.histograms_NC)[order] > 0
    generator = rng.generator(settings.seed, purpose="scenario-classes")
    common_C = shows_NC.sum(axis=0)
    rarest_first = [int(c) for c in np.argsort(common_C, kind="stable") if common_C[c]]
    if not rarest_first:
        raise ConfigError("no image shows a class of the label space", got=images.space.name)
    theme_N = np.full(len(order), -1)
    for c in rarest_first:
        free = generator.permutation(np.flatnonzero((theme_N < 0) & shows_NC[:, c]))
        theme_N[free[: len(order) // len(rarest_first)]] = c
    commonest_N = np.where(shows_NC, common_C, 0).argmax(axis=1)
    commonest_N[~shows_NC.any(axis=1)] = rarest_first[-1]  # no labelled pixel to learn from
    theme_N = np.where(theme_N < 0, commonest_N, theme_N)
    names = {c: images.space.classes[c].replace(" ", "_") for c in rarest_first}
    groups = {names[c]: [order[n] for n in np.flatnonzero(theme_N == c)] for c in names}
    return _cut_groups({name: n for name, n in groups.items() if n}, settings, "class")


def _embedding(images: Images, settings: RuleSettings) -> Held:
    """Divide clusters of pretrained features among clients by Dirichlet shares.

    Borazjani, Abdisarabshali, Khosravan, Hosseinalipour 2025, arXiv 2503.14553: k-means over
    embeddings, and for each cluster, client shares ~ Dirichlet(alpha). Here a client with too few
    images then takes images from the largest client, of the clusters in which its share is largest.
    """
    order, clients = in_time_order(images.samples), settings.clients
    _require_enough(len(order), clients, settings.min_size)
    cluster_N = kmeans(np.asarray(images.features_ND)[order], settings.clusters, settings.seed)
    generator = rng.generator(settings.seed, purpose="scenario-embedding")
    share_GK = generator.dirichlet(np.full(clients, settings.alpha), size=cluster_N.max() + 1)
    owner_N = np.zeros(len(order), dtype=np.int64)
    for cluster, share_K in enumerate(share_GK):
        members = generator.permutation(np.flatnonzero(cluster_N == cluster))
        stops = np.floor(np.cumsum(share_K)[:-1] * len(members) + 1e-9).astype(int)
        for client, part in enumerate(np.split(members, stops)):
            owner_N[part] = client
    rebalance(owner_N, share_GK[cluster_N], settings.min_size)
    return {
        f"embedding-{ordinal(k, clients)}": tuple(order[n] for n in np.flatnonzero(owner_N == k))
        for k in range(clients)
    }


RULES: Mapping[str, Rule] = {
    "uniform": Rule("all images shuffled and cut into equal parts", _uniform),
    "heterogeneous": Rule("each client has images of one domain (city, drive in weather)",
                          _heterogeneous),
    "class_imbalance": Rule("classes divided among clients by pixels, Dirichlet", _class_imbalance,
                            "labels"),
    "classes": Rule("each client labels one class, on images that show it", _classes,
                    "labels", labels_classes=True),
    "embedding": Rule("clusters of pretrained features divided, Dirichlet", _embedding,
                      "features"),
}  # fmt: skip


def subsets_of(held: Held, rule: Rule, space: LabelSpace) -> dict[str, list[str]]:
    """Return the classes that each client labels; empty if every client labels all.

    The result has the format of `partition.label_subset.file`: {client: [class, ...]}.
    """
    if not rule.labels_classes:
        return {}
    named = {name.replace(" ", "_"): name for name in space.classes}
    return {client: [named[client.rpartition("-")[0]]] for client in held}


def _cut_groups(groups: Mapping[str, list[int]], settings: RuleSettings, what: str) -> Held:
    """Shuffle groups and cut them into clients; sizes within a group differ by at most one."""
    fewest, more = divmod(settings.clients, len(groups))
    if fewest < 1:
        raise ConfigError(
            f"fewer clients than groups, but each client has images of one {what} only",
            got=settings.clients,
            expected=f"at least {len(groups)}: {', '.join(sorted(groups))}",
            cure="Increase --clients",
        )
    held: Held = {}
    for place, name in enumerate(sorted(groups, key=lambda name: (-len(groups[name]), name))):
        generator = rng.generator(settings.seed, client_id=name, purpose="scenario-cut")
        wished = fewest + (place < more)
        pieces = min(wished, len(groups[name]))
        parts = np.array_split(generator.permutation(groups[name]), pieces)
        for k, part in enumerate(parts):
            held[f"{name}-{ordinal(k, wished)}"] = tuple(int(n) for n in part)
    return dict(sorted(held.items()))


def _require_enough(images: int, clients: int, least: int) -> None:
    if clients * least > images:
        raise ConfigError(
            f"too few images for {clients} clients",
            got=images,
            expected=f"at least {clients} x {least}",
            cure="Reduce --clients",
        )
