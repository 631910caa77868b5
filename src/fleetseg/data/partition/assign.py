"""Assign every sample to exactly one client.

Only a split file may leave samples out: those that it does not name.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.config import PartitionConfig
from fleetseg.data.partition.grouping import require_known
from fleetseg.data.partition.leaf import match_samples, read_leaf
from fleetseg.data.partition.manifest import Manifest, is_manifest, match_manifest
from fleetseg.data.sample import Sample
from fleetseg.errors import ConfigError

Assignment = dict[str, tuple[int, ...]]
"""Client id -> numbers of its samples, in order of drive and frame; clients sorted."""
Groups = dict[str, list[int]]
"""Name of a natural group within one data set -> its samples in order of time."""


def partition(
    config: PartitionConfig,
    samples: Sequence[Sample],
    histograms_NC: npt.NDArray[np.int64],
    seed: int,
) -> Assignment:
    """Assign every sample to one client; the result does not depend on the order of samples.

    Args:
        config: the kind of partition and its settings.
        samples: all training samples of the fleet.
        histograms_NC: valid pixels per sample and class, shape (N, num_classes); for dirichlet.
        seed: the experiment's seed.

    Raises:
        ConfigError: settings that contradict each other or ask for more clients than possible.
        DataError: a split file that is malformed or does not match the samples.
    """
    in_time = in_time_order(samples)
    if config.kind == "file":
        path = Path(config.file)
        if is_manifest(path):
            held = match_manifest(Manifest.read(path), samples, path)
        else:
            held = match_samples(read_leaf(path), samples, path)
    elif config.kind == "iid":
        held = _iid(in_time, _wished(config, samples), seed)
    elif config.kind == "dirichlet":
        held = _dirichlet(in_time, histograms_NC, _wished(config, samples), config, seed)
    else:
        held = _natural(in_time, samples, config)
    rank = {number: place for place, number in enumerate(in_time)}
    return {client: tuple(sorted(held[client], key=rank.__getitem__)) for client in sorted(held)}


def _natural(
    in_time: Sequence[int], samples: Sequence[Sample], config: PartitionConfig
) -> Assignment:
    """Group by drive, city, ...; split groups into contiguous pieces, or merge small groups.

    Groups of different data sets are never merged: clients are first divided among data sets.
    """
    if config.piece and config.clients:
        raise ConfigError(
            "partition.piece and partition.clients are both set",
            got=f"piece = {config.piece}, clients = {config.clients}",
            cure="Set one: samples per client, or the number of clients",
        )
    require_known(samples, config.by, key="partition.by")
    datasets: dict[str, Groups] = {}
    for number in in_time:
        sample = samples[number]
        group = "" if config.by == "dataset" else str(getattr(sample, config.by))
        datasets.setdefault(sample.dataset, {}).setdefault(group, []).append(number)
    sizes = {name: sum(map(len, groups.values())) for name, groups in datasets.items()}
    wished = _shares(sizes, config.clients) if config.clients else dict.fromkeys(datasets, 0)
    held: Assignment = {}
    for name in sorted(datasets):
        groups = dict(sorted(datasets[name].items()))
        for client, numbers in _clients_of(name, groups, wished[name], config.piece).items():
            held[_unused(client, held)] = numbers
    return held


def _clients_of(dataset: str, groups: Groups, wished: int, piece: int) -> Assignment:
    if wished and wished < len(groups):
        runs = _balanced(list(groups.values()), wished)
        return {f"{dataset}-{ordinal(i, wished)}": tuple(run) for i, run in enumerate(runs)}
    pieces = dict.fromkeys(groups, 1)
    if wished:
        pieces = _shares({name: len(numbers) for name, numbers in groups.items()}, wished)
    elif piece:
        pieces = {name: max(1, round(len(n) / piece)) for name, n in groups.items()}
    held: Assignment = {}
    for name, numbers in groups.items():
        parts = np.array_split(np.array(numbers), pieces[name])  # sizes differ by at most 1
        base = f"{dataset}-{name}" if name else dataset
        for i, part in enumerate(parts):
            ending = f"-{i + 1:0{len(str(len(parts)))}d}" if len(parts) > 1 else ""
            held[_unused(base + ending, held)] = tuple(int(n) for n in part)
    return held


def _shares(sizes: Mapping[str, int], clients: int) -> dict[str, int]:
    """Give each group one client, then each further client to the group with the largest pieces."""
    if not len(sizes) <= clients <= sum(sizes.values()):
        raise ConfigError(
            "impossible number of clients",
            where="partition.clients",
            got=clients,
            expected=f"at least {len(sizes)} (one per data set: {', '.join(sorted(sizes))}) "
            f"and at most {sum(sizes.values())} (one sample each)",
        )
    pieces = dict.fromkeys(sizes, 1)
    # Largest pieces first; ties go to the last name.
    largest: list[tuple[float, int, str]] = [
        (-sizes[name], -i, name) for i, name in enumerate(sorted(sizes))
    ]
    heapq.heapify(largest)
    for _ in range(clients - len(sizes)):
        # A client with one sample cannot be halved, so `pieces` never exceeds the size.
        _, place, name = largest[0]
        pieces[name] += 1
        heapq.heapreplace(largest, (-sizes[name] / pieces[name], place, name))
    return pieces


def _balanced(parts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Cut a sequence of groups into `count` non-empty runs with about equally many samples.

    Each cut is placed as close as possible to its share of all samples, so a run is off by at most
    the size of the largest group.
    """
    stops = np.cumsum([len(part) for part in parts])
    cuts = [0]
    for k in range(1, count):
        nearest = int(np.abs(stops - stops[-1] * k / count).argmin()) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(parts) - (count - k)))
    cuts.append(len(parts))
    return [
        [number for part in parts[start:stop] for number in part] for start, stop in pairwise(cuts)
    ]


def _iid(in_time: Sequence[int], clients: int, seed: int) -> Assignment:
    """Shuffle and cut: sizes differ by at most 1."""
    shuffled = rng.generator(seed, purpose="partition-iid").permutation(in_time)
    parts = np.array_split(shuffled, clients)
    return {
        f"iid-{ordinal(i, clients)}": tuple(int(n) for n in part) for i, part in enumerate(parts)
    }


def _dirichlet(
    in_time: Sequence[int],
    histograms_NC: npt.NDArray[np.int64],
    clients: int,
    config: PartitionConfig,
    seed: int,
) -> Assignment:
    """Skew clients by class pixels: the smaller alpha, the more the clients differ.

    Each class is divided among clients by p_cK ~ Dirichlet(alpha) (Yurochkin et al. 2019, arXiv
    1905.12022, section 4, where an image has one class). Here an image has many classes: it goes to
    client k with probability sum_c w_c * p_ck, where w_c is its share of the fleet's pixels of
    class c, normalised to sum 1, so that a rare class counts as much as road. An image without
    labels goes to any client. Then clients with too few images take the best fitting images from
    the largest client.
    """
    if clients * config.min_size > len(in_time):
        raise ConfigError(
            "too few samples for partition.clients and partition.min_size",
            got=len(in_time),
            expected=f"at least {clients} x {config.min_size}",
        )
    generator = rng.generator(seed, purpose="partition-dirichlet")
    counts_NC = np.asarray(histograms_NC)[list(in_time)]  # in time: input order is irrelevant
    weight_NC = counts_NC / np.maximum(counts_NC.sum(axis=0), 1)
    weight_NC = weight_NC / np.maximum(weight_NC.sum(axis=1, keepdims=True), 1e-12)
    share_CK = generator.dirichlet(np.full(clients, config.alpha), size=counts_NC.shape[1])
    chance_NK = weight_NC @ share_CK + 1e-9
    chance_NK /= chance_NK.sum(axis=1, keepdims=True)
    owner_N = np.array([generator.choice(clients, p=chance_K) for chance_K in chance_NK])
    rebalance(owner_N, chance_NK, config.min_size)
    return {
        f"dirichlet-{ordinal(k, clients)}": tuple(
            in_time[int(n)] for n in np.flatnonzero(owner_N == k)
        )
        for k in range(clients)
    }


def rebalance(
    owner_N: npt.NDArray[np.int64], chance_NK: npt.NDArray[np.float64], min_size: int
) -> None:
    """Move best-fitting images from the largest to the smallest client until none is too small."""
    clients = chance_NK.shape[1]
    while True:
        sizes = np.bincount(owner_N, minlength=clients)
        poor = int(sizes.argmin())
        if sizes[poor] >= min_size:
            return
        from_largest = np.flatnonzero(owner_N == sizes.argmax())
        owner_N[from_largest[chance_NK[from_largest, poor].argmax()]] = poor


def _wished(config: PartitionConfig, samples: Sequence[Sample]) -> int:
    if not 1 <= config.clients <= len(samples):
        raise ConfigError(
            f"partition.kind = '{config.kind}' needs a number of clients",
            where="partition.clients",
            got=config.clients,
            expected=f"1 to {len(samples)} (one sample each)",
        )
    return config.clients


def in_time_order(samples: Sequence[Sample]) -> list[int]:
    """Return sample numbers sorted by data set, city, drive and frame."""

    def place(number: int) -> tuple[str, str, str, int, str]:
        sample = samples[number]
        return sample.dataset, sample.city, sample.sequence, sample.frame, sample.id

    return sorted(range(len(samples)), key=place)


def ordinal(index: int, count: int) -> str:
    """Format the number of a client among `count`, with at least two digits so that names sort."""
    return f"{index + 1:0{max(2, len(str(count)))}d}"


def _unused(client: str, held: Mapping[str, object]) -> str:
    # A drive may have the name of a piece of another drive ("a-1"), so make the name unique.
    while client in held:
        client += "_"
    return client
