"""Frames with a header that nobody of ours would write."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable


def with_header(data: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    """Return a frame with its header changed, and its length."""
    (length,) = struct.unpack("<I", data[4:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return data[:4] + struct.pack("<I", len(text)) + text + data[8 + length :]
