"""Values that a client released with noise, stored: drawing noise again would average it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fleetseg.errors import DataError
from fleetseg.files import write_atomic

Floats = npt.NDArray[np.float32]


def kept_once(folder: Path | None, what: str, make: Callable[[], Floats]) -> Floats:
    """Return what `make` returned when `what` was first requested, in any run.

    The value stays the same even if the client's images change: each new value would reveal more
    about the images that remain. Deleting the file allows one more release. Without a folder, as
    for simulated clients, the value is made each time.

    Raises:
        DataError: the file cannot be read; no new value is made then.
    """
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return _read(path, what)
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"what": what, "shape": made.shape, "numbers": made.ravel().tolist()}
    write_atomic(path, json.dumps(fields) + "\n")
    return made


def _read(path: Path, what: str) -> Floats:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["what"] != what:
            raise ValueError("it is of something else")
        return np.array(fields["numbers"], np.float32).reshape(fields["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"a value that was released with noise cannot be read ({error})",
            where=path,
            cure="Restore the file; to release again, with new noise, delete it",
        ) from None
