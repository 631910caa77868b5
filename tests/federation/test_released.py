"""What was released with noise stays what it was: over runs, other images, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleetseg.errors import DataError
from fleetseg.federation.released import kept_once


def test_it_is_made_once_for_a_name_and_is_the_same_bits_after(tmp_path: Path) -> None:
    made = iter([np.array([[0.1, 1 / 3]], np.float32), np.array([[9, 9]], np.float32)])
    first = kept_once(tmp_path / "car", "lab", lambda: next(made))
    again = kept_once(tmp_path / "car", "lab", lambda: next(made))
    assert again.dtype == np.float32
    assert again.shape == (1, 2)
    assert (again == first).all()
    assert (kept_once(tmp_path / "car", "fda", lambda: next(made)) == 9).all()


def test_without_a_folder_it_is_made_anew() -> None:
    made = iter([np.zeros(1, np.float32), np.ones(1, np.float32)])
    assert [float(kept_once(None, "lab", lambda: next(made))[0]) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"what": "other", "shape": [1], "numbers": [1]}',
             '{"what": "lab", "shape": [2], "numbers": [1]}',
             '{"what": "lab", "shape": [1], "numbers": ["x"]}'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_released_again(text: str, tmp_path: Path) -> None:
    kept_once(tmp_path, "lab", lambda: np.zeros(1, np.float32))
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with pytest.raises(DataError, match="to release again, with new noise, delete it"):
        kept_once(tmp_path, "lab", lambda: np.ones(1, np.float32))
