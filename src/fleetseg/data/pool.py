"""All training samples of an experiment, from several stores, numbered consecutively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fleetseg.config import DataConfig, Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.partition.unlabelled import Hidden, hidden_labels, without_labels
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import open_source
from fleetseg.data.store.cache import Picked, Store, default_cache_dir, open_stores
from fleetseg.errors import ConfigError

Progress = Callable[[str, int, int], None]
"""Called with (what is being read, number done, total)."""


@dataclass(frozen=True)
class Pool:
    """All samples, and the store and index where each lies."""

    train: tuple[Store, ...]  # labels at working resolution
    test: tuple[Store, ...]  # labels at their own resolution; empty if no client is scored
    owner_N: tuple[tuple[int, int], ...]  # sample number -> (store, index in the store)
    hidden: Hidden = field(default_factory=Hidden)  # labels that were not read

    @cached_property  # every client asks: building the list each time would be quadratic
    def samples(self) -> list[Sample]:
        """All samples, by number."""
        return [s for store in self.train for s in store.samples]

    @cached_property
    def digests(self) -> list[tuple[str, str]]:
        """SHA-256 of each image and label; a hidden label's is known only if it is scored on."""
        trained = [d for store in self.train for d in store.digests]
        if not self.hidden.clients or not self.test:
            return trained
        scored = [d for store in self.test for d in store.digests]
        both = zip(trained, scored, strict=True)
        return [(image, label or late) for (image, label), (_, late) in both]

    def good(self, numbers: Sequence[int], *, labelled: bool = True) -> list[int]:
        """Drop samples that are bad, and unlabelled ones if labels are needed."""
        return [n for n in numbers if _usable(self.train, *self.owner_N[n], labelled)]

    def good_to_score(self, numbers: Sequence[int], client: str) -> list[int]:
        """Drop samples of a client that cannot be scored on."""
        if client not in self.hidden.clients:
            return self.good(numbers)
        return [n for n in numbers if self.test and _usable(self.test, *self.owner_N[n], True)]

    def pairs(self, stores: Sequence[Store], numbers: Sequence[int]) -> Picked:
        """Return the samples of these numbers from `stores`, which is `train` or `test`."""
        return Picked(tuple(stores), tuple(self.owner_N[n] for n in numbers))


def _usable(stores: Sequence[Store], store: int, index: int, labelled: bool) -> bool:
    of = stores[store]
    return index not in of.bad and (not labelled or bool(of.labelled[index]))


def open_pool(experiment: Experiment, space: LabelSpace, progress: Progress | None) -> Pool:
    """Open all training samples; labels of clients declared unlabelled are not read.

    Raises:
        DataError, ConfigError: see fleetseg.errors.
    """
    data, holdout = experiment.data, experiment.partition.holdout
    if not data.sources:
        raise ConfigError(
            "data.sources is empty: there is nothing to train on",
            cure="Add [[data.sources]] with kind and root, or give clients= in Python",
        )
    on_clients = experiment.evaluation.on_clients
    sources = [open_source(config) for config in data.sources]
    samples = [sample for source in sources for sample in source.samples]
    hidden = hidden_labels(
        experiment.partition,
        samples,
        experiment.seed,
        scores_training=on_clients and holdout == 0,
    )
    scored = on_clients or holdout > 0
    kinds = (False, True) if scored else (False,)
    opened, first = [], 0
    for source in sources:
        opened.append(_open_split(source, first, hidden, data, space, kinds, progress))
        first += len(source.samples)
    train, test = [stores[0] for stores in opened], [stores[-1] for stores in opened if scored]
    owners = [(k, i) for k, store in enumerate(train) for i in range(len(store))]
    return Pool(tuple(train), tuple(test), tuple(owners), hidden)


def _open_split(
    source: Source,
    first: int,
    hidden: Hidden,
    data: DataConfig,
    space: LabelSpace,
    kinds: Sequence[bool],
    progress: Progress | None,
) -> tuple[Store, ...]:
    """Open one source; if it has hidden labels, open training and scoring stores separately."""
    numbers = range(first, first + len(source.samples))
    if not hidden.to_train.intersection(numbers):
        return open_source_stores(source, data, space, kinds, progress)
    sides = {False: hidden.to_train, True: hidden.to_score}
    return tuple(
        open_source_stores(
            without_labels(source, first, sides[native]), data, space, (native,), progress
        )[0]
        for native in kinds
    )


def open_source_stores(
    source: Source,
    data: DataConfig,
    space: LabelSpace,
    native_labels: Sequence[bool],
    progress: Progress | None,
) -> tuple[Store, ...]:
    """Open one source with an experiment's settings; `native_labels` as in `open_stores`."""
    return open_stores(
        source,
        size_hw=data.size,
        space=space,
        cache_dir=Path(data.cache) if data.cache else default_cache_dir(),
        native_labels=native_labels,
        from_files=data.store == "files",
        progress=progress,
    )
