"""Which classes each client labels: drawn at random, or read from a file or a manifest.

The setting of FedSeg (Miao et al., CVPR 2023): all clients share one label space and each labels
a part of it. Classes that a client does not label are erased from its training labels only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.config import PartitionConfig
from fleetseg.data.labels import ERASED, LabelSpace
from fleetseg.data.partition.manifest import Manifest, is_manifest
from fleetseg.errors import ConfigError, DataError, unknown_name
from fleetseg.files import read_json

LabelSubsets = Mapping[str, tuple[int, ...]]
"""Client -> sorted train ids that it labels; a client not listed labels all classes."""


def label_subsets(
    config: PartitionConfig,
    pixels_C_of: Mapping[str, npt.NDArray[np.int64]],
    space: LabelSpace,
    seed: int,
) -> LabelSubsets:
    """Return which classes each client labels; empty if nothing is erased.

    Args:
        config: `label_subset`, and the manifest if the partition comes from one.
        pixels_C_of: client -> pixels of each class in its training labels before any are erased.
        space: label space of the labels.
        seed: the experiment's seed.

    Raises:
        ConfigError, DataError: unknown clients or classes, too many classes, or an invalid file.
    """
    rule = config.label_subset
    if rule.classes and rule.file:
        raise ConfigError(
            "partition.label_subset.classes and partition.label_subset.file are both set",
            cure="Set one: classes drawn for each client, or a file that names them",
        )
    subsets: LabelSubsets = {}
    if rule.classes:
        subsets = _drawn(pixels_C_of, rule.classes, seed)
    elif rule.file:
        path = Path(rule.file)
        subsets = _ids(_read(path), space, path)
        for client in subsets:
            if client not in pixels_C_of:
                raise unknown_name("client", client, pixels_C_of, where=path)
    elif config.kind == "file" and is_manifest(path := Path(config.file)):
        listed = _ids(Manifest.read(path).label_subsets, space, path)
        subsets = {client: ids for client, ids in listed.items() if client in pixels_C_of}
    if subsets and space.num_classes > ERASED:
        raise ConfigError(
            "too many classes for label subsets", got=space.num_classes, expected=f"<= {ERASED}"
        )
    return subsets


def _drawn(
    pixels_C_of: Mapping[str, npt.NDArray[np.int64]], wanted: int, seed: int
) -> dict[str, tuple[int, ...]]:
    """Give each client some of the classes that its images show.

    Clients take turns; each takes the classes chosen by the fewest clients before it, with ties
    broken at random. In a large enough fleet every class is labelled by about as many clients, as
    in FedSeg's split, and rare classes are not left out.
    """
    generator = rng.generator(seed, purpose="label-subset")
    taken: dict[int, int] = {}
    subsets = {}
    for client in sorted(pixels_C_of):
        shown = generator.permutation(np.flatnonzero(pixels_C_of[client])).tolist()
        chosen = sorted(shown, key=lambda c: taken.get(c, 0))[:wanted]
        taken.update({c: taken.get(c, 0) + 1 for c in chosen})
        subsets[client] = tuple(sorted(chosen))
    return subsets


def _read(path: Path) -> Mapping[str, Sequence[str]]:
    expected = '{"client": ["class", ...], ...}'
    try:
        table: Any = read_json(path)
    except FileNotFoundError:
        raise DataError("file of label subsets not found", where=path) from None
    except ValueError as error:
        raise DataError(f"not JSON ({error})", where=path, expected=expected) from None
    rows = table.values() if isinstance(table, dict) else [None]
    if not all(isinstance(row, list) and all(isinstance(c, str) for c in row) for row in rows):
        raise DataError("not a table of label subsets", where=path, expected=expected)
    return table  # type: ignore[no-any-return]


def _ids(
    names_of: Mapping[str, Sequence[str]], space: LabelSpace, where: Path
) -> dict[str, tuple[int, ...]]:
    for name in {name for names in names_of.values() for name in names}:
        if name not in space.classes:
            raise unknown_name("class", name, space.classes, where=where)
    return {
        client: tuple(sorted({space.classes.index(name) for name in names}))
        for client, names in names_of.items()
    }
