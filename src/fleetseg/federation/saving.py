"""Tensors as safetensors files, with a digest over the whole content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor


class NotIntact(ValueError):
    """A file is not as it was written; the message says what is wrong."""


def to_bytes(tensors: Mapping[str, Tensor], meta: str = "") -> bytes:
    """Return a safetensors file of tensors and a text, including its own digest."""
    apart = separate(tensors)
    header = {"meta": meta, "sha256": _digest(apart, meta)}
    return bytes(safetensors.torch.save(apart, metadata=header))


def from_bytes(data: bytes) -> tuple[dict[str, Tensor], str]:
    """Read what `to_bytes` made.

    Raises:
        NotIntact: it is not such a file, or its content has changed.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        meta, digest = str(header["meta"]), header["sha256"]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise NotIntact(str(error)) from None
    if _digest(tensors, meta) != digest:
        raise NotIntact("its digest differs")
    return tensors, meta


def _digest(tensors: Mapping[str, Tensor], meta: str) -> str:
    hasher = hashlib.sha256(meta.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        hasher.update(f"|{key} {tensor.dtype} {tuple(tensor.shape)}|".encode())
        if tensor.numel():
            hasher.update(tensor.contiguous().numpy().data)
    return hasher.hexdigest()


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own contiguous memory, where it does not have it yet.

    A method may return a tensor that it was given, or a part of one; files support neither.
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
