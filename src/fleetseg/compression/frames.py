"""zstd frames of payloads whose size is known beforehand."""

from __future__ import annotations

from typing import Any

from fleetseg.errors import MissingExtra, UpdateRejected

_LEVEL = 1  # of zstd: higher ones gain a percent on random low bits and take several times longer


def compressed(payload: bytes) -> bytes:
    """Write one frame."""
    return bytes(zstandard().ZstdCompressor(level=_LEVEL).compress(payload))


def expanded(frame: bytes, num_bytes: int) -> bytes:
    """Read one frame of exactly so many bytes, and nothing behind it.

    Raises:
        UpdateRejected: it is none; no more memory is taken than for what is expected.
    """
    zstd = zstandard()
    try:
        told = zstd.get_frame_parameters(frame).content_size
        if told != num_bytes:
            raise UpdateRejected("malformed", "payload size", got=told, expected=num_bytes)
        expand = zstd.ZstdDecompressor().decompress
        return bytes(expand(frame, max_output_size=num_bytes, allow_extra_data=False))
    except (zstd.ZstdError, MemoryError):
        raise UpdateRejected("malformed", "the payload cannot be expanded") from None


def zstandard() -> Any:
    """Import the package, or raise MissingExtra."""
    try:
        import zstandard as package
    except ImportError:
        raise MissingExtra(
            "zstandard", "compression", "federation.uplink or federation.downlink"
        ) from None
    return package
