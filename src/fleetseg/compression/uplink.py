"""A compressed update as one message, and the residual that it leaves out.

Layout: "FSUP", header length (uint32, little endian), header (JSON), one zstd frame. Everything is
checked against sizes known in advance, so that a sender cannot control how much memory is used; the
values then go through the same checks as any update.
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
from fleetseg.compression.frames import compressed, expanded
from fleetseg.compression.payload import Plan, decode, encode
from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout
from fleetseg.federation.wire import checked_update_meta, update_meta, with_residual
from fleetseg.strict_json import BadJson, read_json

VERSION = 1
_MAGIC = b"FSUP"
_HEADER_BYTES = 8192  # most bytes of a header


@dataclass(frozen=True)
class Uplink:
    """A compressing `UpdateCodec`."""

    codec: Codec
    layout: Layout
    seed: int

    @property
    def max_bytes(self) -> int:
        """Most bytes of a message: zstd adds a few per block to incompressible data."""
        return 8 + _HEADER_BYTES + self.plan.num_bytes + self.plan.num_bytes // 128 + 1024

    @property
    def leaves_out(self) -> bool:
        """See UpdateCodec."""
        return self.codec.leaves_out

    @cached_property
    def plan(self) -> Plan:
        """The codec's plan for the layout."""
        return Plan.of(self.codec, self.layout)

    def pack(self, update: Update, residual_T: Tensor | None) -> tuple[bytes, Tensor | None]:
        """Write an update after adding the previous residual (error feedback).

        Residuals: Stich, Cordonnier, Jaggi 2018, arXiv 1809.07599, Algorithm 1 (the "memory"),
        over trainable values; the residual includes the rounding error of the values sent.

        Returns:
            the message, and the new residual: None for a codec that leaves nothing out.

        Raises:
            UpdateRejected: the header is too large, or holds something that is not JSON.
        """
        num, change = self.layout.num_trainable, with_residual(update.change, residual_T)
        generator = rng.generator(self.seed, update.round, update.client_id, "quantise")
        payload = encode(change, self.plan, generator)
        header = self._header(update)
        data = _MAGIC + struct.pack("<I", len(header)) + header + compressed(payload)
        if not self.codec.leaves_out:
            return data, None
        return data, change.values_F[:num] - decode(payload, self.plan).values_F[:num]

    def unpack(self, data: bytes) -> Update:
        """Read a message; the usual checks of an update must follow.

        Raises:
            UpdateRejected: it is not a message, or was made for another model or codec.
        """
        header, frame = self._opened(data)
        change = decode(expanded(frame, self.plan.num_bytes), self.plan)
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
            raise UpdateRejected("malformed", f"neither a number nor a text ({error})") from None
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
            header = read_json(data[8 : 8 + length], max_bytes=_HEADER_BYTES, finite=False)
            version, codec, layout = header["version"], header["codec"], header["layout"]
            fields = header["update"]
        except (BadJson, KeyError, TypeError):
            raise UpdateRejected("malformed", "the message header cannot be read") from None
        if version != VERSION:
            raise UpdateRejected(
                "version", "unsupported version", got=str(version)[:20], expected=VERSION
            )
        if codec != self.codec.name:
            raise UpdateRejected(
                "codec", "wrong codec", got=str(codec)[:40], expected=self.codec.name
            )
        if layout != self.layout.digest:
            raise UpdateRejected("layout", "made for another model", got=str(layout)[:12])
        return fields, data[8 + length :]
