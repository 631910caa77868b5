"""A running server hands the fleet's release out, once, and writes down who drives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.job import Act, Job, until
from tests.fleet.sites import dispatching

from fleetseg.failures import failure_header
from fleetseg.fleet.held_releases import FOLDER, HeldRelease, current_release
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.releases import (
    ReleaseOffers,
    note_drives,
    offer_of,
    publish_to,
    read_drives,
    taken,
)
from fleetseg.fleet.sockets import Header


def obeys(job: Job, site: str, header: Header, payload: bytes) -> None:
    job.sent(header["task"], site)
    told = {"release": header["release"], "digest": header["digest"]}
    job.reply(header["task"], site, {"drives": told})


def refuses(job: Job, site: str, header: Header, payload: bytes) -> None:
    job.sent(header["task"], site)
    job.reply(header["task"], site, failure_header("refused", "digest", "not that file"))


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator[TaskDispatcher]:
    with dispatching(tmp_path) as made:
        yield made


def published(fleet: Path, number: int) -> HeldRelease:
    """A release of a registry, copied into the fleet's folder."""
    folder = fleet / "registry" / f"{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights %d" % number)
    (folder / "release.json").write_text("how it was judged")
    (folder / "release.html").write_text("a page")
    return publish_to(fleet, number, folder)


def begin(dispatcher: TaskDispatcher, act: Act, *sites: str) -> Job:
    before = dispatcher.segment
    job = Job(dispatcher._listener.path, sites, act, f"job-{before}")
    until(lambda: dispatcher.segment > before, "the segment opens")
    return job


def polled(offers: ReleaseOffers, drives: dict[str, Any], **rows: dict[str, Any]) -> None:
    """Poll as rounds do, until the notes are these."""

    def noted() -> bool:
        offers.poll(drives)
        known = read_drives(offers.fleet)
        return all({k: known.get(s, {}).get(k) for k in row} == row for s, row in rows.items())

    until(noted, f"{rows}; {read_drives(offers.fleet)}")


def test_how_a_release_was_judged_stays_with_the_operator(tmp_path: Path) -> None:
    held = published(tmp_path, 1)
    assert current_release(tmp_path / FOLDER) == held
    header, payload = offer_of(held)
    assert [name for name, _, _ in header["files"]] == ["config.json", "model.safetensors"]
    assert payload == b"{}weights 1"
    assert (header["release"], header["digest"]) == (1, held.digest)


def test_who_drives_something_else_is_asked_once(
    tmp_path: Path, dispatcher: TaskDispatcher
) -> None:
    held = published(tmp_path, 1)
    job = begin(dispatcher, obeys, "a", "b", "c")
    offers = ReleaseOffers(tmp_path, dispatcher)
    drives = {"a": {}, "b": held.told(), "c": {"release": 7, "digest": "0" * 64}}
    polled(offers, drives, a=held.told(), b=held.told(), c=held.told())
    offers.poll(drives)
    assert [order["targets"] for order in job.asked] == [["a", "c"]]
    assert dispatcher.bytes_down == 0  # no round's
    job.die()


def test_who_was_away_gets_it_and_a_new_one_goes_to_all(
    tmp_path: Path, dispatcher: TaskDispatcher
) -> None:
    first = published(tmp_path, 1)
    job = begin(dispatcher, obeys, "a")
    offers = ReleaseOffers(tmp_path, dispatcher)
    polled(offers, {"a": {}}, a=first.told())
    job.die()
    until(lambda: not dispatcher.job, "the segment is over")
    job = begin(dispatcher, obeys, "a", "b")
    both = {"a": first.told(), "b": {}}
    polled(offers, both, b=first.told())
    assert [order["targets"] for order in job.asked] == [["b"]]
    second = published(tmp_path, 2)
    polled(offers, both, a=second.told(), b=second.told())
    again = published(tmp_path, 1)  # and back, though "a" said at the start that it drives it
    polled(offers, both, a=again.told(), b=again.told())
    job.die()


def test_a_refusal_is_told_and_written_down(tmp_path: Path, dispatcher: TaskDispatcher) -> None:
    drives = {"a": {"release": 3, "digest": "1" * 64}}
    published(tmp_path, 4)
    job, told = begin(dispatcher, refuses, "a"), list[str]()
    offers = ReleaseOffers(tmp_path, dispatcher, told.append)
    polled(offers, drives, a={"refused": "digest: not that file", "offered": 4, "release": 3})
    offers.poll(drives)
    assert len(job.asked) == 1  # not again and again
    assert told == ["a refuses release 0004: digest: not that file"]
    job.die()


def test_without_a_release_nothing_is_asked(tmp_path: Path, dispatcher: TaskDispatcher) -> None:
    job = begin(dispatcher, obeys, "a")
    note_drives(tmp_path, "a", {"release": 3, "digest": "1" * 64})  # before it was set up anew
    offers = ReleaseOffers(tmp_path, dispatcher)
    offers.poll({"a": {}})
    offers.poll({"a": {}})
    assert job.asked == []
    assert "release" not in read_drives(tmp_path)["a"]
    job.die()


def test_the_revoked_get_nothing(tmp_path: Path, dispatcher: TaskDispatcher) -> None:
    held = published(tmp_path, 1)
    job = begin(dispatcher, obeys, "a", "b")
    offers = ReleaseOffers(tmp_path, dispatcher)
    for _ in range(2):
        offers.poll({"a": {}, "b": {}}, frozenset("b"))
    until(lambda: job.asked, "it is asked")
    assert [order["targets"] for order in job.asked] == [["a"]]
    assert taken("a", {"drives": {**held.told(), "digest": "0" * 64}}, held)["refused"]
    job.die()


def test_trouble_never_ends_a_run(tmp_path: Path, dispatcher: TaskDispatcher) -> None:
    held, told = published(tmp_path, 1), list[str]()
    offers = ReleaseOffers(tmp_path, dispatcher, told.append)
    job = begin(dispatcher, obeys, "a")
    offers.poll({})
    (held.folder / "config.json").unlink()
    (held.folder / "config.json").mkdir()
    offers.poll({"a": {}})
    assert "the release cannot be handed out" in told[0]
    job.die()
