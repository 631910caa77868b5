"""Files as one message: whole, with plain names and the digests that were announced, or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleetseg.errors import UpdateRejected
from fleetseg.fleet.parcels import pack, unpack


@pytest.fixture
def parcel(tmp_path: Path) -> tuple[list[list[Any]], bytes]:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    listed, payload = pack(tmp_path, ("config.json", "empty.txt", "model.safetensors"))
    return json.loads(json.dumps(listed)), payload


def test_files_come_out_as_they_went_in(parcel: tuple[list[list[Any]], bytes]) -> None:
    files = {"config.json": b"{}", "empty.txt": b"", "model.safetensors": b"weights"}
    assert unpack(*parcel) == files


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_byte_that_is_not_the_file_s_is_refused(
    parcel: tuple[list[list[Any]], bytes], place: int
) -> None:
    listed, payload = parcel
    wrong = payload[:place] + b"?" + payload[place + 1 :]
    with pytest.raises(UpdateRejected, match="not the file that was announced") as refused:
        unpack(listed, wrong)
    assert refused.value.reason == "digest"


@pytest.mark.parametrize("payload", [b"", b"{}weight", b"{}weights!"])
def test_other_sizes_are_refused(parcel: tuple[list[list[Any]], bytes], payload: bytes) -> None:
    with pytest.raises(UpdateRejected):
        unpack(parcel[0], payload)


@pytest.mark.parametrize(
    "name", ["../model", "/etc/passwd", ".hidden", "a/b", "", "a\0", "x" * 101, 3, "config.json"]
)
def test_names_are_plain_and_come_once(parcel: tuple[list[list[Any]], bytes], name: Any) -> None:
    listed, payload = parcel
    listed[2][0] = name
    with pytest.raises(UpdateRejected) as refused:
        unpack(listed, payload)
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("listed", [None, [], {}, [["a"]], [["a", -1, "0" * 64]],
                                    [["a", True, "0" * 64]], [["a", 0, "0"]]])  # fmt: skip
def test_what_is_no_list_of_files_is_refused(listed: Any) -> None:
    with pytest.raises(UpdateRejected):
        unpack(listed, b"")
