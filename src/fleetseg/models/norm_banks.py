"""Banks of norm statistics, one per condition, stored beside the weights that they belong to.

`norm_banks.safetensors` in a model folder holds the means and variances of each bank, the
classifier that chooses among them, and a description of their origin, as JSON bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fleetseg.errors import ModelError
from fleetseg.files import write_atomic
from fleetseg.models.conditions import NUM_FACTS, ConditionClassifier
from fleetseg.models.folder import WEIGHTS, find_model
from fleetseg.models.norm_statistics import Statistics, batch_norms

FORMAT = 1
BANKS = "norm_banks.safetensors"
_CURE = "Fill them: fleetseg norm-banks MODEL"


@dataclass(frozen=True, eq=False)
class NormBanks:
    """Statistics of every batch norm per condition, and the classifier that chooses a condition."""

    classifier: ConditionClassifier
    statistics: Mapping[str, Mapping[str, Statistics]]  # condition -> layer -> mean, variance
    images: Mapping[str, int]  # number of images per bank
    filled_from: str

    def __str__(self) -> str:
        """Describe what the banks were made from."""
        numbers = ", ".join(f"{name} {number}" for name, number in sorted(self.images.items()))
        return f"{self.filled_from} ({numbers})"


def save_norm_banks(banks: NormBanks, path: Path) -> Path:
    """Write banks into the model folder at `path` or of a run; equal banks give equal bytes.

    Raises:
        ModelError: there is no model.
    """
    folder = find_model(path)
    about = {
        "format": FORMAT,
        "weights": _sha256(folder / WEIGHTS),
        "conditions": list(banks.classifier.names),
        "images": [banks.images[name] for name in banks.classifier.names],
        "filled_from": banks.filled_from,
    }
    text = json.dumps(about, sort_keys=True, ensure_ascii=False).encode()
    tensors = {
        "about": torch.tensor(list(text), dtype=torch.uint8),
        "classifier/means": torch.from_numpy(banks.classifier.means_KF),
        "classifier/precision": torch.from_numpy(banks.classifier.precision_FF),
    }
    for number, name in enumerate(banks.classifier.names):
        for layer, (mean_C, var_C) in banks.statistics[name].items():
            tensors[f"{number}/{layer}/mean"] = mean_C.detach().cpu().contiguous()
            tensors[f"{number}/{layer}/var"] = var_C.detach().cpu().contiguous()
    write_atomic(folder / BANKS, save(tensors))
    return folder / BANKS


def load_norm_banks(path: Path, model: nn.Module) -> NormBanks:
    """Read the banks of the model folder at `path` or of a run, and check that they are `model`'s.

    Raises:
        ModelError: the banks are missing, damaged, or belong to other weights or another network.
    """
    folder = find_model(path)
    where = folder / BANKS
    if not where.is_file():
        raise ModelError("this model has no norm banks", where=folder, cure=_CURE)
    try:
        tensors = load(where.read_bytes())
        about = json.loads(bytes(tensors["about"].tolist()))
        weights = about["weights"]
        banks = _read(about, tensors)
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise ModelError("damaged or foreign norm banks", where=where, got=repr(error)) from None
    if weights != _sha256(folder / WEIGHTS):
        raise ModelError(
            "the norm banks belong to other weights than this model's", where=where, cure=_CURE
        )
    _require_fit(banks, model, where)
    return banks


def _read(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> NormBanks:
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}, not {FORMAT}")
    names = tuple(str(name) for name in about["conditions"])
    means_KF, precision_FF = (tensors[f"classifier/{k}"].numpy() for k in ("means", "precision"))
    if means_KF.shape != (len(names), NUM_FACTS) or precision_FF.shape != (NUM_FACTS, NUM_FACTS):
        raise ValueError(f"classifier of shapes {means_KF.shape} and {precision_FF.shape}")
    if not (np.isfinite(means_KF).all() and np.isfinite(precision_FF).all()):
        raise ValueError("a classifier that is not finite")
    statistics: dict[str, dict[str, Statistics]] = {name: {} for name in names}
    for key, mean_C in tensors.items():
        number, _, rest = key.partition("/")
        if number.isdecimal() and rest.endswith("/mean"):
            layer = rest.removesuffix("/mean")
            statistics[names[int(number)]][layer] = mean_C, tensors[f"{number}/{layer}/var"]
    images = dict(zip(names, map(int, about["images"]), strict=True))
    classifier = ConditionClassifier(names, means_KF, precision_FF)
    return NormBanks(classifier, statistics, images, str(about["filled_from"]))


def _require_fit(banks: NormBanks, model: nn.Module, where: Path) -> None:
    layers = batch_norms(model)
    for name, bank in banks.statistics.items():
        for layer, (mean_C, var_C) in bank.items():
            wanted = (layers[layer].num_features,) if layer in layers else None
            is_sound = bool(torch.isfinite(mean_C).all()) and bool((var_C >= 0).all())
            if wanted is None or mean_C.shape != wanted or var_C.shape != wanted or not is_sound:
                raise ModelError(
                    "the norm banks do not fit this network",
                    where=where,
                    got=f"{name}: {layer} of {tuple(mean_C.shape)} values",
                    cure=_CURE,
                )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
