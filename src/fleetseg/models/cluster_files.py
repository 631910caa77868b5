"""Tensors specific to clusters of vehicles, stored beside a saved model.

    cluster-0.safetensors ...   each cluster's own tensors, by state-dict keys

The saved model is the headline model; replacing its tensors by a cluster's gives that cluster's
model. Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fleetseg.errors import ModelError
from fleetseg.files import write_atomic

Tensors = Mapping[str, Tensor]


def write_clusters(folder: Path, clusters: Sequence[Tensors]) -> list[str]:
    """Write one file per cluster; return their SHA-256, for the model's config."""
    digests = []
    for number, tensors in enumerate(clusters):
        # Copy: the tensors may be views into one vector.
        plain = {
            key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, tensor in tensors.items()
        }
        data = save(plain)
        write_atomic(folder / _name(number), data)
        digests.append(hashlib.sha256(data).hexdigest())
    return digests


def read_cluster(folder: Path, config: Mapping[str, Any], number: int) -> dict[str, Tensor]:
    """Read the tensors of one cluster.

    Raises:
        ModelError: the model has no such cluster, or its file is missing, damaged or replaced.
    """
    digests = config.get("clusters", [])
    if not isinstance(digests, list) or not 0 <= number < len(digests):
        count = len(digests) if isinstance(digests, list) else 0
        raise ModelError(
            "the model has no such cluster",
            where=folder,
            got=number,
            expected=f"0..{count - 1}" if count else "a model with clusters of vehicles",
            cure=None if count else "Leave the cluster out",
        )
    path = folder / _name(number)
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digests[number]:
            raise ModelError("the cluster file does not belong to this model", where=path)
        return load(data)
    except FileNotFoundError:
        raise ModelError("a cluster's file is missing", where=path) from None
    except SafetensorError as error:
        raise ModelError(f"truncated or damaged weights ({error})", where=path) from None


def _name(number: int) -> str:
    return f"cluster-{number}.safetensors"
