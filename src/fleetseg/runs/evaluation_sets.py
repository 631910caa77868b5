"""Open an experiment's evaluation sets without its training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fleetseg.clients import (
    HELD_OUT,
    EvaluationSet,
    open_server_data,
    scored_pairs,
)
from fleetseg.config import Experiment
from fleetseg.data.partition.assign import partition
from fleetseg.data.partition.holdout import hold_out
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source
from fleetseg.data.spaces import open_space
from fleetseg.data.store.cache import (
    Picked,
    Store,
    default_cache_dir,
    find_store,
    label_histograms,
    open_store,
)
from fleetseg.errors import DataError
from fleetseg.federation.admission import left_out


def open_test_sets(
    experiment: Experiment, size_hw: tuple[int, int], progress: Progress | None = None
) -> tuple[tuple[EvaluationSet, ...], tuple[str, ...]]:
    """Open the server's sets, or else the clients' held-out frames, for a network of some size.

    Only the scored images are decoded; for a partition based on labels, all labels are.

    Returns:
        the sets, and what is wrong with each bad sample in them.

    Raises:
        DataError, ConfigError: see fleetseg.errors.
    """
    if experiment.data.evaluation:
        data = experiment.data.model_copy(update={"size": size_hw})
        fleet_data = open_server_data(experiment.model_copy(update={"data": data}), progress)
        return fleet_data.evaluation, fleet_data.bad
    sources = [open_source(config) for config in experiment.data.sources]
    numbers = _held_out(experiment, sources, progress)
    stores: list[Store] = []
    places: list[tuple[int, int]] = []
    bad: list[str] = []
    for source, chosen in zip(sources, _by_source(numbers, sources), strict=True):
        if chosen:
            store, indices = _open_some(experiment, source, chosen, size_hw, progress)
            places += [
                (len(stores), i) for i in indices if i not in store.bad and store.labelled[i]
            ]
            bad += [store.bad[i] for i in indices if i in store.bad]
            stores.append(store)
    if not places:
        raise DataError("no usable labelled frame is held out", where=experiment.name)
    scored = scored_pairs(Picked(tuple(stores), tuple(places)), experiment.evaluation.by)
    return (EvaluationSet(HELD_OUT, scored),), tuple(bad)


def _held_out(
    experiment: Experiment, sources: Sequence[Source], progress: Progress | None
) -> list[int]:
    """Return the numbers, counted over all sources, of the frames that clients hold out."""
    samples = [sample for source in sources for sample in source.samples]
    histograms_NC: npt.NDArray[np.int64] = np.zeros((len(samples), 0), dtype=np.int64)
    if experiment.partition.kind == "dirichlet":
        histograms_of = partial(
            label_histograms,
            size_hw=experiment.data.size,
            space=open_space(experiment.data),
            cache_dir=_cache_dir(experiment),
            from_files=experiment.data.store == "files",
            progress=progress,
        )
        histograms_NC = np.concatenate([histograms_of(source) for source in sources])
    held = partition(experiment.partition, samples, histograms_NC, experiment.seed)
    split = hold_out(held, samples, experiment.partition)
    out = left_out(split, experiment.federation)
    return [n for client, part in split.items() if client not in out for n in part.test]


def _by_source(numbers: Sequence[int], sources: Sequence[Source]) -> list[list[int]]:
    """Split numbers that count over all sources into indices within each source."""
    first, chosen = 0, []
    for source in sources:
        end = first + len(source.samples)
        chosen.append(sorted(number - first for number in numbers if first <= number < end))
        first = end
    return chosen


def _open_some(
    experiment: Experiment,
    source: Source,
    chosen: Sequence[int],
    size_hw: tuple[int, int],
    progress: Progress | None,
) -> tuple[Store, Sequence[int]]:
    """Open some samples: from the whole source if it is already decoded, otherwise those alone."""
    space, cache_dir = open_space(experiment.data), _cache_dir(experiment)
    from_files = experiment.data.store == "files"
    whole = find_store(
        source,
        size_hw=size_hw,
        space=space,
        cache_dir=cache_dir,
        native_labels=True,
        from_files=from_files,
    )
    if whole is not None:
        return whole, chosen
    store = open_store(
        dataclasses.replace(source, samples=tuple(source.samples[i] for i in chosen)),
        size_hw=size_hw,
        space=space,
        cache_dir=cache_dir,
        native_labels=True,
        from_files=from_files,
        progress=progress,
    )
    return store, range(len(chosen))


def _cache_dir(experiment: Experiment) -> Path:
    return Path(experiment.data.cache) if experiment.data.cache else default_cache_dir()
