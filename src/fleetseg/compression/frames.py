"""zstd frames of payloads whose size is known in advance."""

from __future__ import annotations

from typing import Any

from fleetseg.errors import MissingExtra, UpdateRejected

_LEVEL = 1  # of zstd: higher ones gain a percent on random low bits and take several times longer


def compressed(payload: bytes) -> bytes:
    """Return a payload as one frame."""
    return bytes(zstandard().ZstdCompressor(level=_LEVEL).compress(payload))


def expanded(frame: bytes, num_bytes: int) -> bytes:
    """Decompress one frame of exactly `num_bytes` bytes, followed by nothing.

    Raises:
        UpdateRejected: not such a frame; never uses more memory than the expected size needs.
    """
    zstd = zstandard()
    try:
        told = zstd.get_frame_parameters(frame).content_size
        if told != num_bytes:
            raise UpdateRejected("malformed", "wrong payload size", got=told, expected=num_bytes)
        expand = zstd.ZstdDecompressor().decompress
        return bytes(expand(frame, max_output_size=num_bytes, allow_extra_data=False))
    except (zstd.ZstdError, MemoryError):
        raise UpdateRejected("malformed", "the payload cannot be expanded") from None


def zstandard() -> Any:
    """Import zstandard, or raise MissingExtra."""
    try:
        import zstandard as package
    except ImportError:
        raise MissingExtra(
            "zstandard", "compression", "federation.uplink or federation.downlink"
        ) from None
    return package
