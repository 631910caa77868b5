"""The frames that a saved model is scored on, in its own label space and at its working size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetseg.clients import BAD, EvaluationSet, scored_pairs
from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.own import Collections
from fleetseg.data.pool import Progress
from fleetseg.data.sources import open_source
from fleetseg.data.spaces import open_space
from fleetseg.data.store.cache import Picked, default_cache_dir, open_store
from fleetseg.data.unusable import no_usable_sample
from fleetseg.errors import ConfigError, DataError, ModelError
from fleetseg.own_data import OWN_DATA, own_evaluation_sets
from fleetseg.runs.evaluation_sets import open_test_sets
from fleetseg.runs.folder import has_run, read_experiment
from fleetseg.runs.inference import ReadyModel

ScoredOn = Experiment | SourceConfig | Collections
"""What to score on: an experiment's test frames, a data set, or (image, label) pairs by name."""


@dataclass(frozen=True)
class ScoredFrames:
    """Frames with their labels, and those that were left out."""

    sets: tuple[EvaluationSet, ...]
    bad: tuple[str, ...] = ()  # the defect of each unusable sample
    notes: tuple[str, ...] = ()  # valid in the user's own data but perhaps not intended

    def __len__(self) -> int:
        return sum(len(part.scored) for part in self.sets)

    def named_frames(self) -> Iterator[tuple[str, EvaluationSet, int]]:
        """Yield each frame's name, its set and its number within the set, in order."""
        for part in self.sets:
            pairs = part.scored.pairs
            samples = pairs.samples if isinstance(pairs, Picked) else None
            for number in range(len(part.scored)):
                name = samples[number].id if samples else f"{part.name}/{number:04d}"
                yield name, part, number


def open_scored_frames(
    on: ScoredOn, model: ReadyModel, progress: Progress | None = None
) -> ScoredFrames:
    """Open the frames to score a model on, at its working size.

    Raises:
        ModelError: the experiment has another label space.
        ConfigError: the labels of a data set cannot be projected to the model's space.
        DataError: no usable labelled sample.
    """
    if isinstance(on, Experiment):
        return _of_experiment(on, model, progress)
    if isinstance(on, SourceConfig):
        return _of_data_set(on, model, progress)
    given = own_evaluation_sets(on, model.space, model.size_hw, progress)
    bad = tuple(note.removeprefix(BAD) for note in given.notes if note.startswith(BAD))
    notes = tuple(note for note in given.notes if not note.startswith(BAD))
    return ScoredFrames(given.sets, bad, notes)


def own_experiment(folder: Path) -> Experiment:
    """Return the experiment of a run folder, to score its model on the same frames.

    Raises:
        ConfigError: there is none, or its data were Python objects that no file describes.
    """
    cure = "Say what to score on: on=an experiment, a SourceConfig or (image, label) pairs by name"
    if not has_run(folder):
        raise ConfigError("nothing to score on: not a run folder", where=folder, cure=cure)
    if (folder / OWN_DATA).is_file():
        raise ConfigError("the run's data were Python objects", where=folder, cure=cure)
    return read_experiment(folder)


def _of_experiment(
    experiment: Experiment, model: ReadyModel, progress: Progress | None
) -> ScoredFrames:
    wanted = open_space(experiment.data)
    if model.space.classes != wanted.classes:
        raise ModelError(
            "the model has another label space than the experiment",
            where=model.where,
            got=model.space.name,
            expected=wanted.name,
        )
    if not experiment.data.evaluation and experiment.partition.holdout == 0:
        raise DataError(
            "the experiment has no test frames",
            where=experiment.name,
            cure="Add [[data.evaluation]] or partition.holdout",
        )
    return ScoredFrames(*open_test_sets(experiment, model.size_hw, progress))


def _of_data_set(
    config: SourceConfig, model: ReadyModel, progress: Progress | None
) -> ScoredFrames:
    store = open_store(
        open_source(config),
        size_hw=model.size_hw,
        space=model.space,
        cache_dir=default_cache_dir(),
        native_labels=True,
        progress=progress,
    )
    good = [i for i in range(len(store)) if i not in store.bad and store.labelled[i]]
    name = f"{store.samples[0].dataset}/{config.split}"
    if not good:
        raise no_usable_sample(name, store)
    pairs = Picked((store,), tuple((0, i) for i in good))
    scored = scored_pairs(pairs, "domain")
    return ScoredFrames((EvaluationSet(name, scored),), tuple(store.bad.values()))
