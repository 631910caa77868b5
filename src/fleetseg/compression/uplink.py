"""A compressed update as one message, and what it left out.

Layout: "FSUP", header length (uint32, little endian), header (JSON), one zstd frame. Everything is
checked against sizes known beforehand, so nothing that a sender writes decides how much memory is
taken; the values then pass the same checks as any update.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from fleetseg import rng
from fleetseg.compression.codec import Codec
from fleetseg.compression.payload import Plan, decode, encode
from fleetseg.errors import MissingExtra, UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.wire import checked_update_meta, update_meta

VERSION = 1
_MAGIC = b"FSUP"
_HEADER_BYTES = 8192  # most of a header
_LEVEL = 1  # of zstd: higher ones gain a percent on random low bits and take several times longer


@dataclass(frozen=True)
class Uplink:
    """An `UpdateCodec` that compresses."""

    codec: Codec
    layout: Layout
    seed: int

    @property
    def max_bytes(self) -> int:
        """Most bytes of a message: zstd adds a few per block to what does not compress."""
        return 8 + _HEADER_BYTES + self.plan.num_bytes + self.plan.num_bytes // 128 + 1024

    @cached_property
    def plan(self) -> Plan:
        """The codec fitted to the layout."""
        return Plan.of(self.codec, self.layout)

    def pack(self, update: Update, residual_T: Tensor | None) -> tuple[bytes, Tensor | None]:
        """Write an update; with top-k, what was left out before is added first (error feedback).

        Residuals: Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, Algorithm 1 (the "memory"),
        over trainable values; the residual includes what rounding took from the values sent.

        Returns:
            the message, and the new residual: None for a codec that leaves nothing out.

        Raises:
            UpdateRejected: the header is no header.
        """
        num, change = self.layout.num_trainable, update.change
        if residual_T is not None and self.codec.share < 1:
            # A new vector: the update's own memory is its engine's.
            values_F = change.values_F.clone()
            values_F[:num] += residual_T
            change = ModelState(values_F, change.counters_K)
        generator = rng.generator(self.seed, update.round, update.client_id, "quantise")
        payload = encode(change, self.plan, generator)
        header = self._header(update)
        frame = zstandard().ZstdCompressor(level=_LEVEL).compress(payload)
        data = _MAGIC + struct.pack("<I", len(header)) + header + bytes(frame)
        if self.codec.share == 1:
            return data, None
        return data, change.values_F[:num] - decode(payload, self.plan).values_F[:num]

    def unpack(self, data: bytes) -> Update:
        """Read a message; the usual checks of an update must follow.

        Raises:
            UpdateRejected: it is none, or was made for another model or codec.
        """
        header, frame = self._opened(data)
        change = decode(self._expanded(frame), self.plan)
        return Update(change=change, **checked_update_meta(header))

    def _header(self, update: Update) -> bytes:
        fields = {
            "version": VERSION,
            "codec": self.codec.name,
            "layout": self.layout.digest,
            "update": update_meta(update),
        }
        try:
            header = json.dumps(fields).encode()
        except TypeError as error:
            raise UpdateRejected("malformed", f"not a number or a text ({error})") from None
        if len(header) > _HEADER_BYTES:
            raise UpdateRejected("oversize", "header too large", got=f"{len(header)} bytes")
        return header

    def _opened(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        if len(data) < 8 or data[:4] != _MAGIC:
            raise UpdateRejected("malformed", "not a compressed update")
        (length,) = struct.unpack("<I", data[4:8])
        if length > _HEADER_BYTES or len(data) > self.max_bytes:
            raise UpdateRejected("oversize", "message too large", got=f"{len(data)} bytes")
        try:
            header = json.loads(data[8 : 8 + length])
            version, codec, layout = header["version"], header["codec"], header["layout"]
            fields = header["update"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UpdateRejected("malformed", "the message header cannot be read") from None
        if version != VERSION:
            raise UpdateRejected(
                "version", "another version", got=str(version)[:20], expected=VERSION
            )
        if codec != self.codec.name:
            raise UpdateRejected(
                "codec", "another codec", got=str(codec)[:40], expected=self.codec.name
            )
        if layout != self.layout.digest:
            raise UpdateRejected("layout", "made for another model", got=str(layout)[:12])
        return fields, data[8 + length :]

    def _expanded(self, frame: bytes) -> bytes:
        zstd = zstandard()
        wanted = self.plan.num_bytes
        try:
            told = zstd.get_frame_parameters(frame).content_size
            if told != wanted:
                raise UpdateRejected("malformed", "payload size", got=told, expected=wanted)
            expand = zstd.ZstdDecompressor().decompress
            return bytes(expand(frame, max_output_size=wanted, allow_extra_data=False))
        except (zstd.ZstdError, MemoryError):
            raise UpdateRejected("malformed", "the payload cannot be expanded") from None


def zstandard() -> Any:
    """Import the package, or raise MissingExtra."""
    try:
        import zstandard as package
    except ImportError:
        raise MissingExtra("zstandard", "compression", "federation.uplink") from None
    return package
