"""The chain of a list: it holds over crashes and full disks, and breaks where it was touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetseg.errors import ConfigError
from fleetseg.fleet.audit import lists_in, verify
from fleetseg.fleet.message_log import MessageLog, line_digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A list of seven messages in three files."""
    path = tmp_path / "fleetseg" / "logs" / "egress.jsonl"
    for k in range(7):
        MessageLog(path, max_bytes=700).append("train", f"car-{k}", {"update": k}, b"x")
    assert len(list(path.parent.glob("*.jsonl"))) == 3
    return path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_chain_that_holds(path: Path) -> None:
    audit = verify(path)
    assert (audit.lines, audit.unchained, audit.cut, audit.broken) == (7, 0, 0, "")
    assert audit.digest == line_digest(lines_of(path)[-1])


def first_part(path: Path) -> Path:
    return path.with_name("egress-000001.jsonl")


def change(path: Path) -> str:
    lines = lines_of(first_part(path))
    lines[1] = lines[1].replace(b"car-1", b"car-8")
    first_part(path).write_bytes(b"".join(lines))
    return "000001.jsonl:3"


def take_out(path: Path) -> str:
    lines = lines_of(first_part(path))
    first_part(path).write_bytes(b"".join([lines[0], *lines[2:]]))
    return "000001.jsonl:2"


def put_in(path: Path) -> str:
    lines = lines_of(path)
    path.write_bytes(b"".join([lines[0], *lines]))
    return "egress.jsonl:2"


def spoil(path: Path) -> str:
    lines = lines_of(first_part(path))
    first_part(path).write_bytes(b"".join([b"nothing\n", *lines[1:]]))
    return "000001.jsonl:2"


def unlink_a_line(path: Path) -> str:
    lines = lines_of(path)
    fields = json.loads(lines[0])
    del fields["previous"]
    path.write_bytes(json.dumps(fields).encode() + b"\n" + b"".join(lines[1:]))
    return "egress.jsonl:1"


def remove_the_beginning(path: Path) -> str:
    first_part(path).unlink()
    return "000002.jsonl:1"


def remove_the_middle(path: Path) -> str:
    path.with_name("egress-000002.jsonl").unlink()
    return "egress.jsonl:1"


@pytest.mark.parametrize(
    "touch",
    [change, take_out, put_in, spoil, unlink_a_line, remove_the_beginning, remove_the_middle],
)
def test_what_was_touched_breaks_it_there(touch: object, path: Path) -> None:
    where = touch(path)  # type: ignore[operator]
    assert f"{where}: " in verify(path).broken


@pytest.mark.parametrize("size", [1, 40, 200])
def test_a_line_that_was_cut_off_is_a_link_as_well(size: int, path: Path) -> None:
    with open(path, "ab") as file:
        file.write(lines_of(path)[-1][:size])  # the disk was full, or the power gone
    assert (verify(path).broken, verify(path).cut) == ("", 1)
    MessageLog(path).append("train", "car-7", {}, b"")
    assert (verify(path).broken, verify(path).cut, verify(path).lines) == ("", 1, 8)
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:-2], b"{}\n", lines[-1]]))
    assert verify(path).broken


def test_a_list_of_before_goes_on_as_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "ingress.jsonl"
    path.write_text('{"kind": "hello"}\n{"kind": "train"}\n')
    MessageLog(path).append("train", "car-1", {}, b"")
    audit = verify(path)
    assert (audit.lines, audit.unchained, audit.broken) == (3, 2, "")
    path.write_text(path.read_text().replace('"train"}', '"hello"}'))
    assert ":3: the line before it" in verify(path).broken


def test_lists_are_found_in_kits_and_run_folders(path: Path, tmp_path: Path) -> None:
    assert lists_in(path) == (path,)
    assert lists_in(tmp_path) == (path,)
    assert lists_in(path.parents[1]) == (path,)
    assert lists_in(path.parent) == (path,)
    with pytest.raises(ConfigError, match="no message log"):
        lists_in(tmp_path / "none")
