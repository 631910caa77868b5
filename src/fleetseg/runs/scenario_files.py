"""From a scenario's name to files: the partition, and an experiment that uses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.config import SourceConfig
from fleetseg.data.labels import label_space
from fleetseg.data.partition.leaf import Users, leaf_text, match_samples, read_leaf
from fleetseg.data.partition.rules import RULES, Held, Images, subsets_of
from fleetseg.data.partition.scenarios import Scenario, find_scenario
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import open_source
from fleetseg.data.store.cache import label_histograms
from fleetseg.data.store.folder import default_cache_dir
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import fields_to_toml
from fleetseg.files import write_atomic
from fleetseg.runs.embeddings import embed

Progress = Callable[[str, int, int], None]
"""Called with (what is being read, number done, total)."""

_COHORT = 5  # as in FedDrive and FedSeg


@dataclass(frozen=True)
class Wanted:
    """Which scenario to make, and where."""

    name: str
    out: Path  # a .json file: the partition; a .toml file: an experiment as well
    root: str = ""  # folder of the data
    split: Path | None = None  # a published split to use instead of the rule
    clients: int = 0  # 0 = as many as the scenario has
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """What was written."""

    files: tuple[Path, ...]
    sizes: Mapping[str, int]  # client -> images
    images: int  # in the data set
    notes: tuple[str, ...]


def make_scenario(wanted: Wanted, progress: Progress | None = None) -> Made:
    """Write a scenario's files; nothing is written if anything is wrong.

    Raises:
        ConfigError: no such scenario, or options that do not fit it.
        DataError: the data or the split file cannot be used, or do not belong together.
        MissingExtra: the scenario is based on features, and the encoder is not installed.
    """
    scenario = find_scenario(wanted.name)
    _require_makeable(wanted, scenario)
    source = open_source(_source_config(scenario.train, scenario, wanted.root))
    if wanted.split is not None:
        held = match_samples(read_leaf(train_folder(wanted.split)), source.samples, wanted.split)
    else:
        held = _by_rule(wanted, scenario, source, progress)
    subsets = subsets_of(held, RULES[scenario.rule], label_space(scenario.label_space))
    files = _write(wanted, scenario, _users(held, source, wanted.root), subsets)
    sizes = {client: len(numbers) for client, numbers in held.items()}
    notes = _notes(scenario, sizes, len(source.samples), wanted)
    return Made(files, sizes, len(source.samples), notes)


def train_folder(split: Path) -> Path:
    """Find the training part of a published split: FedDrive and LADD have train/ beside test/."""
    return split / "train" if (split / "train").is_dir() else split


def _require_makeable(wanted: Wanted, scenario: Scenario) -> None:
    if wanted.out.suffix not in (".json", ".toml"):
        raise ConfigError("--out takes a .json or a .toml file", got=str(wanted.out))
    if scenario.needs_root and not wanted.root:
        raise ConfigError(
            f"scenario '{wanted.name}' needs the folder of {scenario.kind}", cure="Give --root"
        )
    if wanted.split is None:
        return
    if scenario.published is None or not scenario.published.folder:
        raise ConfigError(
            f"there is no published split of scenario '{wanted.name}'",
            cure="Leave --from out: it is made by rule",
        )
    if wanted.clients:
        raise ConfigError("--from says who the clients are; leave --clients out")
    if wanted.out.with_suffix(".json").resolve() == wanted.split.resolve():
        raise ConfigError("--out would replace the file of --from", got=str(wanted.split))


def _by_rule(wanted: Wanted, scenario: Scenario, source: Source, progress: Progress | None) -> Held:
    rule, space = RULES[scenario.rule], label_space(scenario.label_space)
    clients = wanted.clients or scenario.settings.clients
    settings = replace(scenario.settings, clients=clients, seed=wanted.seed)
    count = len(source.samples)
    histograms_NC: npt.NDArray[np.int64] = np.zeros((count, space.num_classes), dtype=np.int64)
    features_ND = np.zeros((count, 0), dtype=np.float32)
    if rule.needs == "labels":
        histograms_NC = label_histograms(
            source,
            size_hw=scenario.size,
            space=space,
            cache_dir=default_cache_dir(),
            progress=progress,
        )
    elif rule.needs == "features":
        features_ND = embed(source, progress)
    return rule.held(Images(source.samples, space, histograms_NC, features_ND), settings)


def _source_config(fields: Mapping[str, Any], scenario: Scenario, root: str) -> SourceConfig:
    return SourceConfig(**{"kind": scenario.kind, "root": root, **fields})


def _users(held: Held, source: Source, root: str) -> Users:
    def named(path: str) -> str:
        if not root:
            return path  # a recipe for synthetic data
        return _below(PurePath(path), Path(root)).as_posix()

    def pair(sample: Sample) -> tuple[str, str | None]:
        return named(sample.image), None if sample.label is None else named(sample.label)

    return {c: [pair(source.samples[n]) for n in numbers] for c, numbers in held.items()}


def _below(path: PurePath, root: Path) -> PurePath:
    for base in (root, root.resolve()):
        if path.is_relative_to(base):
            return path.relative_to(base)
    return path


def _write(
    wanted: Wanted, scenario: Scenario, users: Users, subsets: Mapping[str, list[str]]
) -> tuple[Path, ...]:
    out = wanted.out
    out.parent.mkdir(parents=True, exist_ok=True)
    split, classes = out.with_suffix(".json"), out.with_name(f"{out.stem}-classes.json")
    files = {split: leaf_text(users)}
    if subsets:
        rows = [f" {json.dumps(client)}: {json.dumps(names)}" for client, names in subsets.items()]
        files[classes] = "{\n" + ",\n".join(rows) + "}\n"
    if out.suffix == ".toml":
        fields = _fields(wanted, scenario, split, classes if subsets else None, len(users))
        head = f"# {scenario.about}.\n# Made by: fleetseg scenario make {wanted.name}\n"
        files[out] = head + fields_to_toml(fields)
    for path, text in files.items():
        write_atomic(path, text)
    return tuple(files)


def _fields(
    wanted: Wanted, scenario: Scenario, split: Path, classes: Path | None, clients: int
) -> dict[str, Any]:
    root = {"root": str(Path(wanted.root).resolve())} if wanted.root else {}

    def source(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": scenario.kind, **root, **fields}

    partition: dict[str, Any] = {"kind": "file", "file": split.name}
    if classes is not None:
        partition["label_subset"] = {"file": classes.name}
    return {
        "name": wanted.name,
        "seed": wanted.seed,
        "data": {
            "label_space": scenario.label_space,
            "size": list(scenario.size),
            "sources": [source(scenario.train)],
            "evaluation": [source(fields) for fields in scenario.tests],
        },
        "partition": partition,
        "federation": {"cohort": min(_COHORT, clients)},
    }


def _notes(
    scenario: Scenario, sizes: Mapping[str, int], images: int, wanted: Wanted
) -> tuple[str, ...]:
    notes, held = [], sum(sizes.values())
    if held < images:
        lost = f"{images - held:,} of {images:,} images"
        notes.append(f"{lost} are in no client: the split does not name them")
    published = scenario.published
    if wanted.split is not None and published is not None:
        got = (len(sizes), held)
        if got != (published.clients, published.images):
            notes.append(
                f"the split has {got[0]} clients with {got[1]:,} images; the published one "
                f"has {published.clients} with {published.images:,}"
            )
    elif published is not None and published.folder:
        notes.append("made by rule, not the published split: for its figures give --from")
    return tuple(notes)
