"""What `fleetseg data cache` lists and removes, and what it never touches."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.store import digests, eviction
from fleetseg.data.store.cache import Store, open_stores
from fleetseg.data.store.digests import forget_stale, sample_digests
from fleetseg.data.store.eviction import Entry, Rules, choose, entries, prune
from fleetseg.data.store.store import opened

DAY_S = 86_400.0


def read(sample: Sample) -> tuple[Image_HWC, Label_HW]:
    return np.full((8, 12, 3), sample.frame, np.uint8), np.zeros((8, 12), np.uint8)


def source(name: str = "toy", count: int = 3) -> Source:
    samples = tuple(
        Sample(f"{name}/{i}", name, "train", f"{i}", f"{i}", "d", frame=i) for i in range(count)
    )
    return Source(name, CAMVID_11, samples, read, lambda s: (s.id, "label"))


def make(cache_dir: Path, name: str = "toy", size_hw: tuple[int, int] = (4, 6)) -> Store:
    """Make a store of images and two kinds of labels, and close it."""
    store, _ = open_stores(
        source(name),
        size_hw=size_hw,
        space=CAMVID_11,
        cache_dir=cache_dir,
        native_labels=(False, True),
    )
    opened.cache_clear()
    return Store(store.images, store.labels)


def age(folder: Path, days: float) -> None:
    then_s = time.time() - days * DAY_S
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then_s, then_s))


def names(cache_dir: Path) -> set[str]:
    return {path.name for path in cache_dir.iterdir()}


HOLDER = """
import sys
from pathlib import Path
from fleetseg.data.store.cache import Store
store = Store.load(Path(sys.argv[1]), Path(sys.argv[2]))
print("open", flush=True)
sys.stdin.read()
print(int(store.pair(2)[0].max()), flush=True)
"""


@contextmanager
def held_open(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a store open."""
    command = [sys.executable, "-c", HOLDER, str(store.images), str(store.labels)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "open\n"
        try:
            yield holder
        finally:
            if holder.poll() is None:
                holder.kill()


# ------------------------------------------------------------------ what lies there


def test_folders_are_listed_with_what_they_hold(tmp_path: Path) -> None:
    store = make(tmp_path)
    found = entries(tmp_path)
    assert sorted((e.holds, e.source, e.num_samples, e.state) for e in found) == [
        ("images 4x6", "toy/train", 3, "whole"),
        ("labels camvid11 4x6", "toy/train", 3, "whole"),
        ("labels camvid11 at their own size", "toy/train", 3, "whole"),
    ]
    assert {store.images, store.labels} < {entry.path for entry in found}
    assert all(entry.num_bytes >= 4096 and not entry.in_use for entry in found)


def test_opening_a_store_marks_it_as_used_now(tmp_path: Path) -> None:
    store = make(tmp_path)
    for entry in entries(tmp_path):
        age(entry.path, 40)
    assert all(time.time() - e.last_used_s > 39 * DAY_S for e in entries(tmp_path))
    opened_here = Store.load(store.images, store.labels)
    recent = {e.path for e in entries(tmp_path) if time.time() - e.last_used_s < 60}
    assert recent == {store.images, store.labels}
    assert len(opened_here) == 3


def test_an_empty_or_missing_cache_is_no_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert entries(folder) == []
        assert prune(folder, Rules(everything=True)).removed == ()
    (tmp_path / "file").touch()
    assert entries(tmp_path / "file") == []


# ------------------------------------------------------------------ what goes


def test_whole_stores_stay_unless_a_rule_says_otherwise(tmp_path: Path) -> None:
    make(tmp_path)
    assert prune(tmp_path, Rules()).removed == ()
    assert len(prune(tmp_path, Rules(everything=True)).removed) == 3
    assert entries(tmp_path) == []
    assert names(tmp_path) <= {"digests.json"}


def test_old_ones_go_by_when_they_were_last_used(tmp_path: Path) -> None:
    old, new = make(tmp_path, "old"), make(tmp_path, "new")
    for entry in entries(tmp_path):
        age(entry.path, 31 if entry.source == "old/train" else 29)
    done = prune(tmp_path, Rules(older_than_days=30))
    assert {entry.source for entry in done.removed} == {"old/train"}
    assert not old.images.exists()
    assert new.images.exists()
    assert done.freed_bytes > 0
    assert done.remaining_bytes == sum(e.num_bytes for e in entries(tmp_path))


def an_entry(name: str, days: float, gb: float, *, in_use: bool = False) -> Entry:
    used_s = 1000 * DAY_S - days * DAY_S
    return Entry(Path(name), "whole", in_use, "", "", 1, int(gb * 1e9), used_s)


def test_the_longest_unused_go_until_it_fits() -> None:
    found = [an_entry("a", 1, 3), an_entry("b", 2, 5, in_use=True), an_entry("c", 3, 2)]
    found += [an_entry("d", 4, 4)]

    def chosen(**rules: float) -> list[str]:
        return [e.path.name for e in choose(found, Rules(**rules), 1000 * DAY_S)]  # type: ignore[arg-type]

    assert chosen(keep_gb=14) == []
    assert chosen(keep_gb=13.9) == ["d"]
    assert chosen(keep_gb=9) == ["d", "c"]
    assert chosen(keep_gb=0) == ["d", "c", "a"]  # one in use is passed over
    assert chosen(older_than_days=3.5, keep_gb=9) == ["d", "c"]


def test_dry_run_tells_the_same_and_removes_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    before = names(tmp_path)
    told = prune(tmp_path, Rules(everything=True), dry_run=True)
    assert names(tmp_path) == before
    assert prune(tmp_path, Rules(everything=True)) == told


def an_old_store(cache_dir: Path, version: int = 2) -> Path:
    folder = cache_dir / f"camvid-{'0a' * 16}"
    folder.mkdir()
    for name in ("images.u8", "labels.u8"):
        (folder / name).write_bytes(bytes(5000))
    index = {"version": version, "size_hw": [4, 6], "samples": [{}] * 7}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_old_formats_are_recognised_and_go(tmp_path: Path) -> None:
    folder = an_old_store(tmp_path)
    (entry,) = entries(tmp_path)
    assert (entry.state, entry.source, entry.num_samples) == ("old format", "camvid", 7)
    assert prune(tmp_path, Rules()).removed == (entry,)
    assert not folder.exists()


def test_a_newer_format_is_not_taken_for_a_rest(tmp_path: Path) -> None:
    an_old_store(tmp_path, version=99)
    (entry,) = entries(tmp_path)
    assert entry.state == "newer format"
    assert prune(tmp_path, Rules()).removed == ()


@pytest.mark.parametrize("damage", ["index.json", "images.u8"])
def test_damaged_stores_are_rests(tmp_path: Path, damage: str) -> None:
    store = make(tmp_path)
    (store.images / damage).write_bytes(b"{")
    done = prune(tmp_path, Rules())
    assert [(e.path, e.state) for e in done.removed] == [(store.images, "half")]


def test_a_half_store_goes_once_its_builder_is_gone_for_a_minute(tmp_path: Path) -> None:
    half = tmp_path / f".building-{'1f' * 16}"
    half.mkdir()
    (half / "images.u8").write_bytes(b"x")
    (kept,) = prune(tmp_path, Rules(everything=True)).kept
    assert kept.reason == "a process may still be writing it"
    age(half, 0.01)
    assert len(prune(tmp_path, Rules()).removed) == 1
    assert not half.exists()


# ------------------------------------------------------------------ what stays


def test_what_a_living_process_has_open_stays(tmp_path: Path) -> None:
    store = make(tmp_path)
    with held_open(store) as holder:
        done = prune(tmp_path, Rules(everything=True))
        assert {kept.entry.path for kept in done.kept} == {store.images, store.labels}
        assert {kept.reason for kept in done.kept} == {"a running process has it open"}
        assert [e.holds for e in done.removed] == ["labels camvid11 at their own size"]
        assert all(entry.in_use for entry in entries(tmp_path))
        assert holder.communicate("")[0] == "2\n"
    assert len(prune(tmp_path, Rules(everything=True)).removed) == 2


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    with held_open(store) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert len(prune(tmp_path, Rules(everything=True)).removed) == 3


def test_a_store_of_this_process_stays_while_there_is_a_view_of_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    image_HWC, _ = Store.load(made.images, made.labels).pair(1)
    opened.cache_clear()
    gc.collect()
    assert made.images in {kept.entry.path for kept in prune(tmp_path, Rules(everything=True)).kept}
    assert image_HWC.max() == 1
    del image_HWC
    gc.collect()
    assert [e.path for e in prune(tmp_path, Rules(everything=True)).removed] == [made.images]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_an_old_format_that_is_in_somebodys_memory_stays(tmp_path: Path) -> None:
    folder = an_old_store(tmp_path)
    mapped = np.memmap(folder / "images.u8", mode="r")
    (kept,) = prune(tmp_path, Rules(everything=True)).kept
    assert kept.reason == "a running process has it open"
    del mapped
    gc.collect()
    assert len(prune(tmp_path, Rules()).removed) == 1


def test_foreign_folders_are_neither_listed_nor_touched(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 2
    for name in ("mine", f"a-{digest}", ".building-mine", f"empty-{digest}", f"b-{digest}x"):
        (tmp_path / name).mkdir()
    (tmp_path / f"a-{digest}" / "images.u8").touch()
    (tmp_path / f"a-{digest}" / "thesis.tex").touch()
    (tmp_path / f"c-{digest}" / "index.json").mkdir(parents=True)
    (tmp_path / f"d-{digest}").touch()
    elsewhere = make(tmp_path / "elsewhere")
    (tmp_path / f"link-{digest}").symlink_to(elsewhere.images)
    linked = tmp_path / f"e-{digest}"
    linked.mkdir()
    (linked / "images.u8").symlink_to(elsewhere.images / "images.u8")
    for half in (f".building-{digest}",):
        (tmp_path / half).mkdir()
        (tmp_path / half / "notes.txt").touch()
        age(tmp_path / half, 9)
    before = sorted(tmp_path.rglob("*"))
    assert entries(tmp_path) == []
    assert prune(tmp_path, Rules(everything=True)).removed == ()
    make(tmp_path)  # its sweep for halves touches none either
    assert set(before) <= set(tmp_path.rglob("*"))


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(eviction.os, "rename", refuse)
    done = prune(tmp_path, Rules(everything=True))
    assert {kept.reason for kept in done.kept} == {"it cannot be removed (Permission denied)"}
    assert done.freed_bytes == 0


OPENER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_eviction import open_stores, source, CAMVID_11, opened
for turn in range(40):
    stores = open_stores(source(), size_hw=(4, 6), space=CAMVID_11, cache_dir=Path(sys.argv[1]),
                         native_labels=(False, True))
    assert [int(store.pair(2)[0].max()) for store in stores] == [2, 2]
    del stores
    opened.cache_clear()
"""


def test_openers_and_pruners_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(OPENER), str(tmp_path), here]
    openers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    while any(opener.poll() is None for opener in openers):
        prune(tmp_path, Rules(everything=True))
    assert [opener.communicate()[1] for opener in openers] == ["", ""]
    assert [opener.returncode for opener in openers] == [0, 0]
    prune(tmp_path, Rules(everything=True))
    assert names(tmp_path) <= {"digests.json"}


# ------------------------------------------------------------------ digests


def test_digests_of_files_that_are_gone_or_changed_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "RACY_NS", 0)
    files = [tmp_path / name for name in ("same|/x", "changed", "gone")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("one")
    samples = [Sample(f"s|/{i}", "s", "train", str(f), None, "d") for i, f in enumerate(files)]
    of = Source("s", CAMVID_11, tuple(samples), read, lambda s: ("a" * 64, ""))
    memo = tmp_path / "digests.json"
    sample_digests(of, memo)
    assert len(json.loads(memo.read_text())) == 3
    files[1].write_text("three")
    files[2].unlink()
    assert forget_stale(memo, dry_run=True) == 2
    assert forget_stale(memo) == 2
    (key,) = json.loads(memo.read_text())
    assert str(files[0]) in key
    assert forget_stale(memo) == forget_stale(tmp_path / "nowhere") == 0
