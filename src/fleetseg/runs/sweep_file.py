"""A sweep as TOML: one experiment, the options to vary, and the seeds.

name  = "methods"              # default: the file's
base  = "tiny.toml"            # the experiment, a path; or inline as [base]
seeds = [0, 1, 2]              # default: the base's

[grid]                         # every combination is a setting
method = ["fedavg", "fedprox"]
training.lr = [1e-3, 3e-3]

[[run]]                        # and so is each of these
name = "fedprox"
method = "fedprox"
grid = { "training.prox.mu" = [0.01, 0.1] }   # its own: as many settings

[[run]]
name = "centralised"
baseline = "centralised"
"baseline.images_share" = 2.0
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import (
    apply_override,
    dotted,
    fields_to_toml,
    read_fields,
    with_resolved_paths,
)
from fleetseg.hosts import given_path
from fleetseg.methods import laid_under

_KEYS = ("name", "base", "seeds", "grid", "run")
_OF_THE_SWEEP = ("name", "seeds")  # that --set may change
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Options = Mapping[str, Any]
"""Nested fields of an experiment."""


@dataclass(frozen=True)
class Setting:
    """One row of the table: what is varied, and the name of its runs."""

    name: str
    options: Options
    baseline: str = ""  # "centralised", or "" for a federation


@dataclass(frozen=True)
class Sweep:
    """An experiment with its settings and seeds; paths are absolute."""

    name: str
    base: Options
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]

    def to_toml(self) -> str:
        """Write the sweep so that `read_sweep` reads an equal one, wherever the file is."""
        runs = []
        for setting in self.settings:
            kind = {"baseline": {"kind": setting.baseline}} if setting.baseline else {}
            options = laid_under(setting.options, kind)
            runs.append({"name": setting.name, **options})
        head = {"name": self.name, "seeds": list(self.seeds)}
        return fields_to_toml({**head, "base": dict(self.base), "run": runs})


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file; overrides apply to every run, or change `seeds` and `name`.

    Raises:
        ConfigError: naming the error. Options are checked later, with the runs they make.
    """
    fields = read_fields(path, "sweep file")
    wanted: dict[str, Any] = {}
    for override in overrides:
        apply_override(wanted, override)
    fields |= {key: wanted.pop(key) for key in _OF_THE_SWEEP if key in wanted}
    for key in fields:
        if key not in _KEYS:
            raise _unknown(key, path)
    base = _base(fields.get("base"), path)
    settings = [*_grid_settings(fields.get("grid"), path), *_run_settings(fields, path)]
    return Sweep(
        name=_name(fields.get("name", path.stem), path),
        base=base,
        seeds=_seeds(fields.get("seeds", [base.get("seed", 0)]), path),
        settings=tuple(
            replace(one, options=with_resolved_paths(laid_under(one.options, wanted), path.parent))
            for one in _distinct(settings, path)
        ),
    )


def _base(given: Any, path: Path) -> Options:
    if isinstance(given, dict):
        return with_resolved_paths(given, path.parent)
    if not isinstance(given, str):
        raise ConfigError(
            "a sweep needs a base", where=path, expected='base = "EXPERIMENT.toml", or a [base]'
        )
    file = path.parent / given_path(given)
    return with_resolved_paths(read_fields(file), file.parent)


def _seeds(given: Any, path: Path) -> tuple[int, ...]:
    whole = isinstance(given, list) and all(type(seed) is int for seed in given)
    if not whole or not given or len(set(given)) < len(given):
        raise ConfigError("seeds", where=path, got=given, expected="different whole numbers")
    return tuple(given)


def _grid_settings(grid: Any, path: Path) -> list[Setting]:
    if grid is None:
        return []
    return [_setting(words, options, path) for words, options in _points(grid, path)]


def _run_settings(fields: Mapping[str, Any], path: Path) -> list[Setting]:
    runs = fields.get("run", [])
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ConfigError("run is not a list of tables", where=path, expected="[[run]]")
    settings = []
    for run in runs:
        options = dict(run)
        name, grid = options.pop("name", ""), options.pop("grid", None)
        if name and not isinstance(name, str):
            raise ConfigError("the name of a [[run]]", where=path, got=name, expected="a text")
        if not name:
            name = _words_of(dotted(options))
        for words, varied in _points(grid, path) if grid is not None else [("", {})]:
            full = "_".join(word for word in (name, words) if word)
            settings.append(_setting(full, laid_under(_nested(dotted(options)), varied), path))
    return settings


def _setting(name: str, options: Options, path: Path) -> Setting:
    """Take the kind of baseline out of the options, because an experiment has no such option."""
    rest = dict(options)
    given = rest.pop("baseline", {})
    baseline = dict(given) if isinstance(given, dict) else {"kind": given}
    kind = baseline.pop("kind", "")
    if kind not in ("", "centralised"):
        raise ConfigError(
            "this baseline is not a single run",
            where=f"{path}: {name}",
            got=repr(kind),
            expected="'centralised'",
            cure="Every vehicle alone: fleetseg run EXPERIMENT.toml --baseline local",
        )
    for key in ("seed", "name"):
        if key in rest:
            raise ConfigError(
                f"'{key}' is not varied", where=f"{path}: {name}", cure="See seeds = [...], name"
            )
    return Setting(
        _name(name, path), {**rest, **({"baseline": baseline} if baseline else {})}, kind
    )


def _points(grid: Any, path: Path) -> Iterator[tuple[str, Options]]:
    """Return every combination of a grid, with a name for each."""
    if not isinstance(grid, dict):
        raise ConfigError("a grid is a table", where=path, got=repr(grid))
    axes = dotted(grid)
    for option, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: '{option}' has no list of values", where=path, got=values)
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        yield _words_of(point), _nested(point)


def _words_of(point: Mapping[str, Any]) -> str:
    """Name a point by its values: "fedprox_mu-0.1"; options of equal last names keep the whole."""
    lasts = [option.rpartition(".")[2] for option in point]
    words = []
    for option, value in point.items():
        last = option.rpartition(".")[2]
        shown = last if lasts.count(last) == 1 else option
        text = _safe(value)
        plain = option in ("method", "baseline", "model.name")
        words.append(text if plain else f"{shown}-{text}")
    return "_".join(word for word in words if word)


def _safe(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(_safe(item) for item in value)
    text = (str(value).lower() if isinstance(value, bool) else str(value)).replace("+", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") if text else "none"


def _name(name: Any, path: Path) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "invalid name of a setting",
            where=path,
            got=repr(name),
            expected="letters, digits, '.', '_' and '-', a letter or digit first",
        )
    return name


def _distinct(settings: Sequence[Setting], path: Path) -> Sequence[Setting]:
    if not settings:
        return [Setting("base", {})]  # only seeds vary
    names = [setting.name for setting in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "several settings with the same name",
            where=path,
            got=", ".join(twice),
            cure="Name each [[run]]",
        )
    return settings


def _unknown(key: str, path: Path) -> ConfigError:
    near = difflib.get_close_matches(key, _KEYS, n=1)
    return ConfigError(
        f"unknown key '{key}' of a sweep",
        where=path,
        expected="one of: " + ", ".join(_KEYS),
        cure=f"Did you mean '{near[0]}'?" if near else "Options go into [grid], [[run]] or [base]",
    )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Make nested tables from dotted names; "baseline" stands for its `kind`."""
    nested: dict[str, Any] = {}
    for option, value in flat.items():
        *parents, last = ("baseline", "kind") if option == "baseline" else option.split(".")
        table = nested
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"'{option}': '{parent}' is not a table that has keys")
        table[last] = value
    return nested
