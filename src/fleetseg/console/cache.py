"""`fleetseg data cache list` and `fleetseg data cache prune`."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

import typer
from rich.text import Text

from fleetseg.console import count, print_line, stdout_console
from fleetseg.console.tables import name_cell, plain_table
from fleetseg.data.store.cache import default_cache_dir
from fleetseg.data.store.eviction import Entry, Rules, entries, prune
from fleetseg.text import size_text

_HEADS = ("store", "holds", "source", "samples", "size", "last used", "")


def list_and_show(*, as_json: bool) -> None:
    """Print the contents of the cache folder."""
    folder = default_cache_dir()
    found = entries(folder)
    total = sum(entry.num_bytes for entry in found)
    if as_json:
        rows = [_as_json(entry) for entry in found]
        typer.echo(json.dumps({"folder": str(folder), "bytes": total, "stores": rows}))
        return
    console = stdout_console()
    if found:
        table = plain_table(*_HEADS, left=("store", "holds", "source", "last used", ""))
        for entry in found:
            table.add_row(
                name_cell(_short(entry.path.name)),
                entry.holds,
                name_cell(entry.source),
                f"{entry.num_samples:,}" if entry.num_samples else "",
                size_text(entry.num_bytes),
                _ago(entry.last_used_s),
                Text(_state(entry), "yellow" if entry.is_rest else "dim"),
            )
        console.print(table)
        console.print()
    print_line(console, f"{count(len(found), 'folder')}, {size_text(total)} in {folder}")
    rests = sum(entry.num_bytes for entry in found if entry.is_rest)
    if rests:
        print_line(console, f"{size_text(rests)} of it is unusable: fleetseg data cache prune")


def prune_and_show(rules: Rules, *, dry_run: bool, as_json: bool) -> None:
    """Remove entries from the cache folder and say how much space was freed."""
    folder = default_cache_dir()
    done = prune(folder, rules, dry_run=dry_run)
    if as_json:
        fields = {
            "folder": str(folder),
            "dry_run": dry_run,
            "removed": [_as_json(entry) for entry in done.removed],
            "kept": [{**_as_json(kept.entry), "reason": kept.reason} for kept in done.kept],
            "stale_digests": done.stale_digests,
            "freed_bytes": done.freed_bytes,
            "remaining_bytes": done.remaining_bytes,
        }
        typer.echo(json.dumps(fields))
        return
    console = stdout_console()
    for entry in done.removed:
        print_line(console, f"{'would remove' if dry_run else 'removed'} {_described(entry)}")
    for kept in done.kept:
        print_line(console, f"kept {_described(kept.entry)}: {kept.reason}", "yellow")
    if done.stale_digests:
        verb = "would forget" if dry_run else "forgot"
        what = count(done.stale_digests, "remembered digest")
        print_line(console, f"{verb} {what} of files that are gone or have changed")
    verb = "would free" if dry_run else "freed"
    left = f"{size_text(done.remaining_bytes)} {'would remain' if dry_run else 'remain'}"
    print_line(console, f"{verb} {size_text(done.freed_bytes)}; {left} in {folder}")


def _described(entry: Entry) -> str:
    what = " ".join(part for part in (entry.source, entry.holds) if part)
    details = f"{size_text(entry.num_bytes)}, last used {_ago(entry.last_used_s)}"
    return f"{_short(entry.path.name)} ({what + ', ' if what else ''}{details}, {_state(entry)})"


def _state(entry: Entry) -> str:
    return f"{entry.state}, in use" if entry.in_use else entry.state


def _short(name: str) -> str:
    """Shorten a digest to the part that distinguishes stores."""
    return name[:-24]


def _ago(then_s: float) -> str:
    minutes = max(0, int(time.time() - then_s)) // 60
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{count(minutes, 'minute')} ago"
    if minutes < 48 * 60:
        return f"{count(minutes // 60, 'hour')} ago"
    return f"{count(minutes // 1440, 'day')} ago"


def _as_json(entry: Entry) -> dict[str, Any]:
    last_used = datetime.datetime.fromtimestamp(entry.last_used_s, datetime.UTC)
    return {
        "name": entry.path.name,
        "holds": entry.holds,
        "source": entry.source,
        "samples": entry.num_samples,
        "bytes": entry.num_bytes,
        "last_used": last_used.isoformat(timespec="seconds"),
        "state": entry.state,
        "in_use": entry.in_use,
    }
