"""Messages as bytes: safetensors with one JSON header entry.

All messages of a model have one size. A codec (`UpdateCodec`) encodes updates; `PlainCodec` writes
them as they are. Decoding checks sizes, kind, version and layout before it allocates memory, raises
nothing but UpdateRejected, and never unpickles.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import META_BYTES, Broadcast, Failure, Packed, Update
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.learning.inputs import Facts
from fleetseg.strict_json import BadJson, read_json

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
_FACTS_BYTES = 1 << 26  # limit on all facts of a broadcast
_NO_FACT = np.array(np.nan, dtype=np.float32)
MAX_FACT = 65_536
"""Most numbers in one fact."""
MAX_FACT_ITEMS = 1 << 22
"""Most numbers and lists in all facts of a broadcast."""
_MAX_DEPTH = 8  # dimensions of a fact


class UpdateCodec(Protocol):
    """Both ends of the uplink: clients `pack` updates, the server unpacks them with `unpack`."""

    @property
    def max_bytes(self) -> int:
        """Largest size of a message in bytes."""
        ...

    @property
    def leaves_out(self) -> bool:
        """Whether a message may leave out a residual, which its client has to keep for later."""
        ...

    def pack(self, update: Update, residual_T: Tensor | None) -> tuple[bytes, Tensor | None]:
        """Encode an update plus the earlier residual; returns the message and the new residual."""
        ...

    def unpack(self, data: bytes) -> Update:
        """Decode an update, or raise UpdateRejected; the usual checks must follow."""
        ...


@dataclass(frozen=True)
class PlainCodec:
    """Encodes updates as they are."""

    layout: Layout

    @cached_property
    def max_bytes(self) -> int:
        """See UpdateCodec."""
        return message_bytes(self.layout, self.layout)[1]

    @property
    def leaves_out(self) -> bool:
        """See UpdateCodec."""
        return False

    def pack(self, update: Update, residual_T: Tensor | None) -> tuple[bytes, Tensor | None]:
        """See UpdateCodec."""
        whole = replace(update, change=with_residual(update.change, residual_T))
        return encode_update(whole, self.layout), None

    def unpack(self, data: bytes) -> Update:
        """See UpdateCodec."""
        return decode_update(data, self.layout)


def with_residual(change: ModelState, residual_T: Tensor | None) -> ModelState:
    """Add the residual of earlier messages to the trainable values, in new memory."""
    if residual_T is None:
        return change
    values_F = change.values_F.clone()  # the update's memory belongs to its engine
    values_F[: residual_T.numel()] += residual_T
    return ModelState(values_F, change.counters_K)


def unpacked(packed: Packed, codec: UpdateCodec) -> Update | Failure:
    """Decode a client's message; an invalid one, or another client's, becomes a failure."""
    try:
        update = codec.unpack(packed.data)
    except UpdateRejected as rejected:
        return Failure.refused(packed.client_id, rejected)
    if update.client_id != packed.client_id:
        return Failure(
            packed.client_id, "refused", "identity", "an update in another client's name"
        )
    return update


def encode_broadcast(broadcast: Broadcast, layout: Layout) -> bytes:
    """Encode a broadcast without its client-specific part; its size depends on the layout.

    Facts with many numbers add whole blocks.
    """
    meta = {"round": broadcast.round, "facts": write_facts(broadcast.facts)}
    return _encode("broadcast", layout, layout.views(broadcast.state), meta)


def encode_update(update: Update, layout: Layout) -> bytes:
    """Encode an update; its size depends on the layout only."""
    return _encode("update", layout, layout.views(update.change), update_meta(update))


def decode_broadcast(data: bytes, layout: Layout) -> Broadcast:
    """Decode a broadcast, or raise UpdateRejected."""
    meta, state = _decode("broadcast", data, layout)
    if type(meta.get("round")) is not int:
        raise UpdateRejected("malformed", "a broadcast needs a round")
    return Broadcast(meta["round"], state, read_facts(meta.get("facts")))


def decode_update(data: bytes, layout: Layout) -> Update:
    """Decode an update, or raise UpdateRejected; `validate_update` must follow."""
    meta, change = _decode("update", data, layout)
    return Update(change=change, **checked_update_meta(meta))


def update_meta(update: Update) -> dict[str, Any]:
    """Return the header fields of an update, with measures only if there are any."""
    measures = {"measures": dict(update.measures)} if update.measures else {}
    return {name: getattr(update, name) for name in _UPDATE_FIELDS} | measures


def checked_update_meta(meta: Any) -> dict[str, Any]:
    """Return a header's fields if they are those of an update, or raise UpdateRejected."""
    if not isinstance(meta, dict) or set(meta) - {"measures"} != set(_UPDATE_FIELDS):
        got = sorted(meta)[:20] if isinstance(meta, dict) else type(meta).__name__
        raise UpdateRejected("malformed", "header fields differ", got=got)
    if not isinstance(meta["client_id"], str):
        raise UpdateRejected("malformed", "the client's name is not text")
    return meta


def write_facts(facts: Facts) -> dict[str, Any]:
    """Write facts as nested lists of numbers."""
    return {name: array.tolist() for name, array in facts.items()}


def read_facts(fields: Any) -> Facts:
    """Read facts, or raise UpdateRejected: named arrays of finite numbers, limited in size."""
    if not isinstance(fields, dict) or len(fields) > 100:
        raise UpdateRejected("malformed", "not named facts")
    facts = {}
    for name, rows in fields.items():
        if not _are_few_numbers(rows):  # before any memory is allocated for them
            raise UpdateRejected(
                "malformed",
                "a fact is not made of numbers, or too large",
                got=name[:40],
            )
        try:
            with np.errstate(over="ignore"):
                facts[name] = np.array(rows).astype(np.float32)
        except (ValueError, OverflowError):
            raise UpdateRejected("malformed", "a fact is not an array", got=name[:40]) from None
        if not np.isfinite(facts[name]).all():
            raise UpdateRejected("malformed", "a fact is not made of finite numbers", got=name[:40])
    return facts


def _are_few_numbers(rows: Any) -> bool:
    """Return whether nested lists hold only numbers, at most MAX_FACT of them, and few lists."""
    level, depth, count = [rows], 0, 0
    while level:
        lists = [entry for entry in level if isinstance(entry, list)]
        if any(type(entry) not in (int, float, list) for entry in level) or depth > _MAX_DEPTH:
            return False
        count += len(level) + sum(map(len, lists))
        if count > 4 * MAX_FACT or len(level) - len(lists) > MAX_FACT:
            return False
        level, depth = [entry for rows in lists for entry in rows], depth + 1
    return True


def message_bytes(down: Layout, up: Layout) -> tuple[int, int]:
    """Return the encoded size in bytes of a (broadcast, update) of these layouts."""
    update = Update(1, "c", up.empty(), 1, 1, 1, 1, 0.0)
    return len(encode_broadcast(Broadcast(1, down.empty()), down)), len(encode_update(update, up))


def _encode(
    kind: str, layout: Layout, tensors: Mapping[str, Tensor], meta: dict[str, Any]
) -> bytes:
    header = json.dumps(
        {"kind": kind, "version": WIRE_VERSION, "layout": layout.digest, "meta": meta}
    )
    # Measured as written: inside the outer JSON each quote takes two characters.
    padding = -len(json.dumps(header)) % META_BYTES
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
    header_limit = _header_limit(layout) + (_FACTS_BYTES if kind == "broadcast" else 0)
    if len(data) < 8:
        raise UpdateRejected("malformed", "message too short", got=f"{len(data)} bytes")
    (header_bytes,) = struct.unpack("<Q", data[:8])
    if header_bytes > header_limit or len(data) > 8 + header_limit + payload:
        raise UpdateRejected("oversize", "message too large", got=f"{len(data)} bytes")
    try:
        outer = read_json(data[8 : 8 + header_bytes], max_bytes=header_limit)
        text = outer["__metadata__"]["fleetseg"]
        # Non-finite values are accepted here: the checks of values report them as such.
        header = read_json(text, max_bytes=header_limit, max_items=MAX_FACT_ITEMS, finite=False)
        version, layout_digest = header["version"], header["layout"]
        fits = header["kind"] == kind and isinstance(header["meta"], dict)
    except (BadJson, KeyError, TypeError):
        raise UpdateRejected("malformed", "the message header cannot be read") from None
    if version != WIRE_VERSION or not fits:
        raise UpdateRejected(
            "version", f"not a message '{kind}' of version {WIRE_VERSION}", got=str(version)[:20]
        )
    if layout_digest != layout.digest:
        raise UpdateRejected("layout", "made for another model", got=str(layout_digest)[:12])
    return header  # type: ignore[no-any-return]


def _header_limit(layout: Layout) -> int:
    """Return the most bytes that an honest header of this layout can take."""
    # Per key: its name (six bytes for an escaped character), dtype, shape and two offsets.
    per_key = sum(6 * len(key) + 24 * len(e.shape) + 128 for key, e in layout.by_key.items())
    return META_BYTES + 256 + per_key
