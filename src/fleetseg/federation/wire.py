"""Messages as bytes: safetensors with one JSON header entry.

All messages of a model have one size. Decoding checks sizes, kind, version and layout before it
allocates, raises nothing but UpdateRejected, and never unpickles.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Broadcast, Update
from fleetseg.federation.tensors import Layout, ModelState

WIRE_VERSION = 1
_UPDATE_FIELDS = (
    "round",
    "client_id",
    "num_images",
    "num_pixels",
    "num_steps",
    "images_seen",
    "loss",
)
_META_BYTES = 8192  # the JSON entry is padded to this: all messages of a model have one size


def encode_broadcast(broadcast: Broadcast, layout: Layout) -> bytes:
    """Encode a broadcast; its size depends on the layout only."""
    weights = [float(weight) for weight in broadcast.class_weights_C]
    meta = {"round": broadcast.round, "class_weights": weights}
    return _encode("broadcast", layout, layout.views(broadcast.state), meta)


def encode_update(update: Update, layout: Layout) -> bytes:
    """Encode an update; its size depends on the layout only."""
    return _encode("update", layout, layout.views(update.change), update_meta(update))


def decode_broadcast(data: bytes, layout: Layout) -> Broadcast:
    """Decode a broadcast, or raise UpdateRejected."""
    meta, state = _decode("broadcast", data, layout)
    weights = meta.get("class_weights")
    if type(meta.get("round")) is not int or not isinstance(weights, list):
        raise UpdateRejected("malformed", "a broadcast needs a round and class weights")
    if not all(type(w) is float and math.isfinite(w) for w in weights):
        raise UpdateRejected("malformed", "class weights are not finite numbers")
    return Broadcast(meta["round"], state, tuple(weights))


def decode_update(data: bytes, layout: Layout) -> Update:
    """Decode an update, or raise UpdateRejected; `validate_update` must follow."""
    meta, change = _decode("update", data, layout)
    return Update(change=change, **checked_update_meta(meta))


def update_meta(update: Update) -> dict[str, Any]:
    """Take from an update what its header says."""
    return {name: getattr(update, name) for name in _UPDATE_FIELDS}


def checked_update_meta(meta: Any) -> dict[str, Any]:
    """Return a header's fields if they are those of an update, or raise UpdateRejected."""
    if not isinstance(meta, dict) or set(meta) != set(_UPDATE_FIELDS):
        got = sorted(meta)[:20] if isinstance(meta, dict) else type(meta).__name__
        raise UpdateRejected("malformed", "header fields differ", got=got)
    if not isinstance(meta["client_id"], str):
        raise UpdateRejected("malformed", "the client's name is no text")
    return meta


def message_bytes(layout: Layout, state: ModelState) -> tuple[int, int]:
    """Return the encoded size in bytes of a (broadcast, update) of this layout."""
    update = Update(1, "c", state, 1, 1, 1, 1, 0.0)
    return len(encode_broadcast(Broadcast(1, state), layout)), len(encode_update(update, layout))


def _encode(
    kind: str, layout: Layout, tensors: Mapping[str, Tensor], meta: dict[str, Any]
) -> bytes:
    header = json.dumps(
        {"kind": kind, "version": WIRE_VERSION, "layout": layout.digest, "meta": meta}
    )
    # Measured as it will be written: inside the outer JSON each quote takes two characters.
    padding = _META_BYTES - len(json.dumps(header))
    assert padding >= 0, "message header grew past its fixed size"
    data = safetensors.torch.save(
        {key: tensor.contiguous() for key, tensor in tensors.items()},
        metadata={"fleetseg": header + " " * padding},
    )
    return bytes(data)


def _decode(kind: str, data: bytes, layout: Layout) -> tuple[dict[str, Any], ModelState]:
    header = _checked_header(kind, data, layout)
    try:
        tensors = safetensors.torch.load(data)
    except (
        safetensors.SafetensorError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        raise UpdateRejected("malformed", f"not a valid message ({error})"[:300]) from None
    _check_tensors(tensors, layout)
    state = layout.empty()
    for key, view in layout.views(state).items():
        view.copy_(tensors[key])
    return header["meta"], state


def _check_tensors(tensors: Mapping[str, Tensor], layout: Layout) -> None:
    """Check that keys, shapes and dtypes are those of the layout, or raise UpdateRejected."""
    missing = sorted(layout.by_key.keys() - tensors.keys())
    extra = sorted(tensors.keys() - layout.by_key.keys())
    if missing or extra:
        raise UpdateRejected("keys", f"tensor names differ: missing {missing}, extra {extra}"[:500])
    for key, entry in layout.by_key.items():
        tensor = tensors[key]
        dtype = torch.int64 if entry.kind == "counter" else torch.float32
        if not isinstance(tensor, Tensor):
            raise UpdateRejected("dtype", "not a tensor", where=key, got=type(tensor).__name__)
        if tuple(tensor.shape) != entry.shape:
            raise UpdateRejected(
                "shape", "wrong shape", where=key, got=tuple(tensor.shape), expected=entry.shape
            )
        if tensor.dtype != dtype:
            raise UpdateRejected(
                "dtype", "wrong dtype", where=key, got=tensor.dtype, expected=dtype
            )


def _checked_header(kind: str, data: bytes, layout: Layout) -> dict[str, Any]:
    payload = 4 * layout.num_floats + 8 * layout.num_counters
    header_limit = _header_limit(layout)
    if len(data) < 8:
        raise UpdateRejected("malformed", "message too short", got=f"{len(data)} bytes")
    (header_bytes,) = struct.unpack("<Q", data[:8])
    if header_bytes > header_limit or len(data) > 8 + header_limit + payload:
        raise UpdateRejected("oversize", "message too large", got=f"{len(data)} bytes")
    try:
        outer = json.loads(data[8 : 8 + header_bytes])
        header = json.loads(outer["__metadata__"]["fleetseg"])
        version, layout_digest = header["version"], header["layout"]
        fits = header["kind"] == kind and isinstance(header["meta"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UpdateRejected("malformed", "the message header cannot be read") from None
    if version != WIRE_VERSION or not fits:
        raise UpdateRejected(
            "version", f"not a message '{kind}' of version {WIRE_VERSION}", got=str(version)[:20]
        )
    if layout_digest != layout.digest:
        raise UpdateRejected("layout", "made for another model", got=str(layout_digest)[:12])
    return header  # type: ignore[no-any-return]


def _header_limit(layout: Layout) -> int:
    """Most bytes that an honest header of this layout can take."""
    # Per key: its name (six bytes for an escaped character), dtype, shape and two offsets.
    per_key = sum(6 * len(key) + 24 * len(e.shape) + 128 for key, e in layout.by_key.items())
    return _META_BYTES + 256 + per_key
