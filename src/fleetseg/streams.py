"""Standard output and error that never end the work: any encoding, even a reader that has gone."""

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
_DOTS = {chr(code) for code in range(0x2800, 0x2900)}  # spinner characters
_GONE = (errno.EPIPE, errno.EIO)  # a closed pipe, a terminal that hung up


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks with ones that every encoding has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "*" if c in _DOTS else "?") for c in text), error.end


class _Patient(io.FileIO):
    """A file descriptor whose write errors are kept until the end of the command."""

    trouble: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write, or drop the data if they cannot be written."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self.trouble = self.trouble or error
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Let standard output and error take any text, and lose output rather than end the work."""
    codecs.register_error(_HANDLER, _plain)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            # Closed by the parent process: unless replaced, the next opened file would take its
            # number.
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
    """Flush both streams; return why output was lost, unless its reader has gone."""
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
