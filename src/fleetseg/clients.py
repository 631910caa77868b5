"""From an experiment to a fleet: open the data, assign them to clients, record the assignment."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fleetseg.config import DataConfig, Experiment
from fleetseg.data.aspect import aspect_note
from fleetseg.data.erased import Erased
from fleetseg.data.labels import ERASED, IGNORE, LabelSpace
from fleetseg.data.partition.assign import partition
from fleetseg.data.partition.grouping import one_group, require_known
from fleetseg.data.partition.holdout import Split, hold_out
from fleetseg.data.partition.label_subset import label_subsets
from fleetseg.data.partition.manifest import (
    Entry,
    Manifest,
    repeated_images,
    require_no_leaks,
    shared_drives,
)
from fleetseg.data.pool import Pool, Progress, open_pool, open_source_stores
from fleetseg.data.sample import Pairs, Sample, ScoredPairs
from fleetseg.data.sources import open_source
from fleetseg.data.spaces import open_space
from fleetseg.data.store.cache import Picked, Store
from fleetseg.data.store.folder import cache_folder
from fleetseg.data.unusable import (
    no_usable_sample,
    nobody_takes_part,
    unlabelled_by_all,
    unseen_classes,
)
from fleetseg.federation.admission import (
    idle_patterns,
    left_out,
    require_somebody,
    why_left_out,
)
from fleetseg.federation.client import Client
from fleetseg.federation.fleet_facts import reported_facts
from fleetseg.federation.messages import Enrolment, taking_part
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.text import listing

BAD = "bad sample skipped: "
"""Prefix of the note on a bad sample."""
HELD_OUT = "held-out frames of all clients"
"""Name of all clients' held-out frames when they form one evaluation set."""


@dataclass(frozen=True)
class EvaluationSet:
    """Samples that the server scores on, with labels at their original resolution."""

    name: str
    scored: ScoredPairs


@dataclass(frozen=True)
class FleetData:
    """A fleet with its data, ready to run."""

    space: LabelSpace
    clients: Mapping[str, Client]
    evaluation: tuple[EvaluationSet, ...]
    manifest: Manifest | None  # None when the user brought pairs of their own
    notes: tuple[str, ...] = ()  # bad samples, clients that abstain, drives on both sides
    holds_out: bool = False  # clients keep frames for testing
    own_data: Mapping[str, str] = field(default_factory=dict)  # owner -> digest of the samples
    # In a centralised run, whose one client has all images: the frames of each client it stands
    # for.
    members: Mapping[str, ScoredPairs] = field(default_factory=dict)

    @property
    def seen_domains(self) -> frozenset[str] | None:
        """Domains of all training samples; None where they are not known."""
        trained = [c.train_domains for c in self.clients.values() if not c.enrolment.abstains]
        known = [domains for domains in trained if domains is not None]
        return frozenset().union(*known) if known and len(known) == len(trained) else None

    @property
    def bad(self) -> tuple[str, ...]:
        """The defect of each bad sample."""
        return tuple(n.removeprefix(BAD) for n in self.notes if n.startswith(BAD))

    @property
    def enrolled(self) -> dict[str, Enrolment]:
        """The enrolment of each client: what it reports about its data."""
        return {name: client.enrolment for name, client in self.clients.items()}


def open_fleet_data(
    experiment: Experiment,
    progress: Progress | None = None,
    space: LabelSpace | None = None,
    released: Path | None = None,
) -> FleetData:
    """Open all data of an experiment and give every client its samples.

    A vehicle of a fleet receives the label `space` from its server, and keeps the values that it
    reports with noise in the folder `released`.

    Raises:
        DataError, LeakError, ConfigError: see fleetseg.errors.
    """
    space = space or open_space(experiment.data)
    pool = open_pool(experiment, space, progress)
    if pool.test:
        require_known(pool.samples, experiment.evaluation.by, key="evaluation.by")
    histograms_NC = np.concatenate([store.histograms_NC for store in pool.train])
    held = partition(experiment.partition, pool.samples, histograms_NC, experiment.seed)
    split = hold_out(held, pool.samples, experiment.partition)
    require_somebody(split, experiment.federation)
    pixels_C_of = {c: histograms_NC[pool.good(split[c].train)].sum(axis=0) for c in split}
    labelling = {c: n for c, n in pixels_C_of.items() if c not in pool.hidden.clients}
    subsets = label_subsets(experiment.partition, labelling, space, experiment.seed)
    clients = {
        c: _client(c, split[c], pool, pixels_C_of[c], experiment, subsets.get(c), released)
        for c in split
    }
    evaluation, named = open_evaluation(experiment, space, progress)
    names_of = {c: tuple(space.classes[i] for i in ids) for c, ids in subsets.items()}
    out = left_out(split, experiment.federation)
    manifest = replace(_manifest(pool, split, named), label_subsets=names_of, left_out=out)
    require_no_leaks(manifest)
    require_clients(clients, pool.train)
    notes = _cache_notes(experiment.data) + idle_patterns(split, experiment.federation)
    split = {client: part for client, part in split.items() if client not in out}
    notes += _notes(pool, split, list(named.values()), clients, experiment)
    trained = [pool.owner_N[n] for part in split.values() for n in pool.good(part.train)]
    notes += one_group(pool.samples, experiment.partition)
    notes += [*unlabelled_by_all(subsets, labelling, space), *repeated_images(manifest)]
    if trained:  # otherwise there are no labels to look for classes in
        notes += unseen_classes(pool.train, trained, space)
    notes.sort(key=lambda note: note.startswith(BAD))  # many bad samples must not hide the rest
    return FleetData(space, clients, evaluation, manifest, tuple(notes), bool(manifest.held_out))


def open_server_data(experiment: Experiment, progress: Progress | None = None) -> FleetData:
    """Open the server's evaluation sets; the clients are on other machines.

    Raises:
        DataError, ConfigError: see fleetseg.errors.
    """
    space = open_space(experiment.data)
    evaluation, named = open_evaluation(experiment, space, progress)
    manifest = Manifest(clients={}, evaluation=_evaluated(named))
    bad = [BAD + text for store in named.values() for text in store.bad.values()]
    squeezed = _squeezed(list(named.values()), experiment.data.size)
    notes = (*_cache_notes(experiment.data), *bad, *squeezed)
    held_out = experiment.partition.holdout > 0
    return FleetData(space, {}, evaluation, manifest, notes, held_out)


def open_evaluation(
    experiment: Experiment, space: LabelSpace, progress: Progress | None
) -> tuple[tuple[EvaluationSet, ...], dict[str, Store]]:
    """Open the server's evaluation sets; return them and their stores by name."""
    stores = [
        open_source_stores(open_source(config), experiment.data, space, (True,), progress)[0]
        for config in experiment.data.evaluation
    ]
    named = dict(zip(_names(stores), stores, strict=True))
    sets = tuple(_evaluation_set(name, store, experiment) for name, store in named.items())
    return sets, named


def progress_on(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """Make a progress callback for one data set."""
    return None if progress is None else lambda done, of: progress(what, done, of)


def require_clients(clients: Mapping[str, Client], stores: Sequence[Store] = ()) -> None:
    """Refuse a fleet in which no client can take part, and say why.

    `stores` hold the training samples if they come from disk; the most common reasons are named.

    Raises:
        DataError: there are no clients, or all abstain.
    """
    if not taking_part({name: client.enrolment for name, client in clients.items()}):
        raise nobody_takes_part([client.enrolment.abstains for client in clients.values()], stores)


def abstention(client: Client) -> str:
    """Write the note on a client that abstains."""
    return f"client {client.id} abstains: {client.enrolment.abstains}"


def _client(
    name: str,
    split: Split,
    pool: Pool,
    histogram_C: np.ndarray,
    experiment: Experiment,
    labelled: tuple[int, ...] | None,
    released: Path | None,
) -> Client:
    train, by = split.train, experiment.evaluation.by
    on_training = experiment.evaluation.on_clients and experiment.partition.holdout == 0
    supervision = SUPERVISION[experiment.training.supervision]
    good_train, abstains = _trained_on(name, train, pool, experiment)
    good_test = pool.good_to_score(train if on_training else split.test, name)
    if labelled is not None:
        kept_C = np.isin(np.arange(len(histogram_C)), labelled)
        histogram_C = histogram_C * kept_C
        if supervision.needs_labels and not abstains and not histogram_C.any():
            abstains = "none of its pixels is of a class that it labels"
    abstains = why_left_out(name, experiment.federation) or abstains
    test_pixels = sum(
        int(pool.test[k].histograms_NC[i].sum())
        for k, i in map(pool.owner_N.__getitem__, good_test)
    )
    picked = pool.pairs(pool.train, good_train)
    pairs: Pairs = picked
    if labelled is not None:
        pairs = Erased(picked, labelled, ERASED if supervision.takes_erased else IGNORE)
    own = released / hashlib.sha256(name.encode()).hexdigest()[:16] if released else None
    facts = {} if abstains else reported_facts(experiment, pairs, own)
    enrolled = _enrol(name, histogram_C, len(good_train), test_pixels, abstains)
    return Client(
        enrolment=replace(enrolled, facts=facts),
        train=pairs,
        test=scored_pairs(pool.pairs(pool.test, good_test), by),
        train_domains=frozenset(_domains(picked.samples, by)),
        labelled=labelled,
    )


def _trained_on(
    name: str, train: Sequence[int], pool: Pool, experiment: Experiment
) -> tuple[list[int], str]:
    """Choose the samples that a client trains on, and say why it abstains if it does."""
    supervision = SUPERVISION[experiment.training.supervision]
    only_labelled = supervision.needs_labels or (supervision.self_taught and bool(pool.good(train)))
    good = pool.good(train, labelled=only_labelled)
    num_bad = len(train) - len(pool.good(train, labelled=supervision.needs_labels))
    if not good and supervision.needs_labels and name in pool.hidden.clients:
        return good, "it is declared unlabelled, and training.supervision needs labels"
    if not good:
        return good, f"no usable {'labelled ' if supervision.needs_labels else ''}sample"
    if num_bad > experiment.data.max_bad_share * len(train):
        return good, f"{num_bad} of {len(train)} samples are bad"
    return good, ""


def _enrol(
    name: str, histogram_C: np.ndarray, num_images: int, test_pixels: int, abstains: str = ""
) -> Enrolment:
    counts = tuple(int(n) for n in histogram_C)
    return Enrolment(name, num_images, sum(counts), counts, abstains, test_pixels)


def _names(stores: Sequence[Store]) -> list[str]:
    """Name evaluation sets by data set and split; sets of the same name are numbered."""
    names: list[str] = []
    for store in stores:
        name = f"{store.samples[0].dataset}/{store.samples[0].split}"
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def _evaluation_set(name: str, store: Store, experiment: Experiment) -> EvaluationSet:
    good = [i for i in range(len(store)) if i not in store.bad and store.labelled[i]]
    if not good:
        raise no_usable_sample(name, store)
    require_known(store.samples, experiment.evaluation.by, key="evaluation.by")
    picked = Picked((store,), tuple((0, i) for i in good))
    return EvaluationSet(name, scored_pairs(picked, experiment.evaluation.by))


def scored_pairs(pairs: Picked, by: str) -> ScoredPairs:
    """Group samples for scoring by one of their facts."""
    return ScoredPairs(pairs, _domains(pairs.samples, by))


def _domains(samples: Sequence[Sample], by: str) -> tuple[str, ...]:
    return tuple(str(getattr(sample, by)) for sample in samples)


def _manifest(
    pool: Pool,
    split: Mapping[str, Split],
    stores: Mapping[str, Store],
) -> Manifest:
    samples, digests = pool.samples, pool.digests

    def entries(numbers: Sequence[int]) -> tuple[Entry, ...]:
        return tuple(Entry(samples[n].id, *digests[n]) for n in numbers)

    return Manifest(
        clients={client: entries(part.train) for client, part in split.items()},
        held_out={client: entries(part.test) for client, part in split.items() if part.test},
        evaluation=_evaluated(stores),
        unlabelled=tuple(sorted(pool.hidden.clients)),
    )


def _evaluated(stores: Mapping[str, Store]) -> dict[str, tuple[Entry, ...]]:
    return {
        name: tuple(Entry(s.id, *d) for s, d in zip(store.samples, store.digests, strict=True))
        for name, store in stores.items()
    }


def _cache_notes(data: DataConfig) -> list[str]:
    """Note where decoded samples are kept in a place that may not last."""
    note = "" if data.cache else cache_folder().note
    return [note] if note else []


def _notes(
    pool: Pool,
    split: Mapping[str, Split],
    stores: Sequence[Store],
    clients: Mapping[str, Client],
    experiment: Experiment,
) -> list[str]:
    notes = []
    for store in (*pool.train, *stores):
        notes += [BAD + text for text in store.bad.values()]
    notes += _squeezed((*pool.train, *stores), experiment.data.size)
    notes += [abstention(c) for c in clients.values() if c.enrolment.abstains]
    if SUPERVISION[experiment.training.supervision].self_taught:
        notes += _half_labelled(pool, split, clients)
    # Synthetic drives of different splits share a name, not a street.
    tests = [s for store in stores for s in store.samples if s.dataset != "synthetic"]
    samples = pool.samples
    trained = [samples[n] for part in split.values() for n in part.train]
    held_out = [samples[n] for part in split.values() for n in part.test]
    notes += shared_drives(trained, tests)
    notes += shared_drives(trained, held_out, experiment.partition.holdout_gap)
    if untested := [c for c, part in split.items() if held_out and not part.test]:
        notes.append(
            f"{listing(untested)}: too few frames to hold any out, so not scored themselves"
        )
    return notes


def _half_labelled(
    pool: Pool, split: Mapping[str, Split], clients: Mapping[str, Client]
) -> list[str]:
    """Note clients that have unlabelled images beside labelled ones and train on the latter."""
    idle = {
        name: len(pool.good(part.train, labelled=False)) - clients[name].enrolment.num_images
        for name, part in split.items()
        if clients[name].enrolment.num_pixels
    }
    return [
        f"client {name} trains on its labelled images alone: {count} others have no label"
        for name, count in idle.items()
        if count > 0
    ]


def _squeezed(stores: Sequence[Store], size_hw: tuple[int, int]) -> list[str]:
    """Note each source whose images differ in aspect ratio from the working size."""
    notes = []
    for store in stores:
        name = f"{store.samples[0].dataset}/{store.samples[0].split}"
        counts = Counter(hw for hw in store.native_hw if hw is not None)
        notes.append(aspect_note(name, counts, size_hw))
    return list(dict.fromkeys(note for note in notes if note is not None))
