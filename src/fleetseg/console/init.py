"""`fleetseg init`: what was found, what was chosen, and the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from fleetseg.console import count, print_line, stdout_console
from fleetseg.draft.choose import Choice
from fleetseg.draft.look import Found
from fleetseg.draft.write import ONE, Draft, draft, engine_words
from fleetseg.text import listing


def draft_and_show(folder: Path, *, kind: str, out: Path | None, force: bool) -> None:
    """Write an experiment file, and say what it is based on."""
    drafted = draft(folder, kind=kind, out=out, force=force)
    console = stdout_console()
    for key, text in (*_found(drafted.found), *_chosen(drafted)):
        print_line(console, f"{key:<10} {text}")
    print_line(console, f"{'wrote':<10} {drafted.file}", "bold")
    for number, command in enumerate(_next(drafted)):
        print_line(console, f"{'next' if not number else '':<10} {command}")


def _found(found: Found) -> Iterator[tuple[str, str]]:
    where = f" in {found.root}" if found.root else ""
    yield "found", f"{found.name}, layout {found.kind}{where}"
    parts = [
        f"{part.split} {count(part.images, 'image')}"
        + ("" if part.labelled == part.images else f" ({part.labelled} labelled)")
        for part in found.parts
    ]
    yield "splits", ", ".join(parts)
    space = found.space
    yield "classes", f"{space.num_classes} ({space.name}): {listing(space.classes, 8)}"
    if found.wrote is not None:
        yield "", f"drafted from the masks in {found.wrote}: give them their names there"
    (height, width), several = found.size_hw, found.num_sizes > 1
    yield "images", f"{height} x {width}" + (f", and {found.num_sizes - 1} more" * several)
    facts = {"drive": "sequence", "city": "city", "vehicle": "vehicle"}
    known = [count(found.facts[fact], word) for word, fact in facts.items() if found.facts[fact]]
    yield "known", ", ".join(known) or "no drive, city or vehicle by their names"


def _chosen(drafted: Draft) -> Iterator[tuple[str, str]]:
    found, choice = drafted.found, drafted.choice
    yield "vehicles", _vehicles(choice)
    if found.scored is not None:
        seen = found.train.drives & found.scored.drives
        note = "; training knows its drives, so scores are optimistic" if seen else ""
        yield "scored on", f"{found.scored.split}, {count(found.scored.images, 'image')}{note}"
    elif choice.holdout:
        yield "scored on", "the last fifth of every vehicle's drives: no other split has labels"
    else:
        yield "scored on", "training images: there are too few to hold any out"
    network = "FPN on EfficientNet-Lite0, ImageNet weights" if choice.pretrained else "Fast-SCNN"
    height, width = choice.size
    yield "network", f"{network}, at {height} x {width}, batches of {choice.batch_size}"
    engine = engine_words(choice, drafted.machine)
    yield "engine", f"{engine}; {count(choice.rounds, 'round')}"


def _vehicles(choice: Choice) -> str:
    word = ONE[choice.by] if choice.by else ""
    if choice.kind == "iid":
        how = "images dealt out"
    else:
        how = f"one for each {word}" if choice.as_they_are else f"pieces by {word}"
    asked = f", {choice.cohort} asked each round" if choice.cohort else ""
    return f"{choice.clients}, {how}{asked}"


def _next(drafted: Draft) -> Iterator[str]:
    file = shlex.quote(str(drafted.file))
    if drafted.found.root:
        yield f"fleetseg data check {shlex.quote(drafted.found.root)}"
    yield f"fleetseg run {file} --dry-run"
    yield f"fleetseg run {file} --out {shlex.quote(f'runs/{drafted.file.stem}')}"
