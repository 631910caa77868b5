"""Standard output and error that work never ends for: any encoding, a reader that has gone."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HANDLER = "fleetseg-plain"
_PLAIN = {
    **dict.fromkeys("·–—━╸╺─", "-"),
    **dict.fromkeys("▏▎▍▌▋▊▉", "|"),
    **dict(zip("▁▂▃▄▅▆▇", "1234567", strict=True)),
    "█": "#",
    "✓": "+",
    "✗": "x",
    "…": "...",
    "×": "x",
    "±": "+-",
}
_DOTS = {chr(code) for code in range(0x2800, 0x2900)}  # a spinner's
_GONE = (errno.EPIPE, errno.EIO)  # a closed pipe, a terminal that was hung up


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in characters that each one has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "*" if c in _DOTS else "?") for c in text), error.end


class _Patient(io.FileIO):
    """A descriptor to write to whose trouble is kept for the end of the command."""

    trouble: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write, or drop what cannot be written."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self.trouble = self.trouble or error
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Have standard output and error take any text, and lose it rather than end the work."""
    codecs.register_error(_HANDLER, _plain)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            # Closed by whoever started us; else the next file that is opened would take its place.
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and _is_descriptor(stream, number):
            stream.flush()
            stream = io.TextIOWrapper(
                io.BufferedWriter(_Patient(number, "w", closefd=False)),
                encoding=stream.encoding,
                errors=_HANDLER,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
        setattr(sys, name, stream)


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


def finish_streams() -> str:
    """Write out what is left; returns why output was lost, but not that nobody wanted it."""
    told = ""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
        trouble = getattr(getattr(getattr(stream, "buffer", None), "raw", None), "trouble", None)
        if trouble is not None and trouble.errno not in _GONE:
            told = f"standard {'output' if name == 'stdout' else 'error'}: {trouble.strerror}"
    return told
