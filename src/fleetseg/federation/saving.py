"""Tensors as a file takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor memory of its own, in its own order, where it has not.

    A method may hand on what it was given, or a part of it; files take neither.
    """
    owners: dict[int, str] = {}
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes
        is_first = owners.setdefault(storage.data_ptr(), name) == name
        alone = whole and (is_first or not tensor.numel())
        apart[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    return apart
