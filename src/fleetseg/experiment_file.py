"""Experiment files (TOML): read with overrides and resolved paths, write back, explain errors."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fleetseg.config import EvaluationConfig, Experiment, SourceConfig
from fleetseg.config.section import Section
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.files import read_text
from fleetseg.hosts import expanded
from fleetseg.methods import METHODS, laid_under


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply `section.key=value` overrides (values in TOML).

    Raises:
        ConfigError: with the file, the key, what was got, what was expected and the nearest match.
    """
    fields = read_fields(path)
    for override in overrides:
        apply_override(fields, override)
    return make_experiment(fields, where=str(path), base=path.parent)


def read_fields(path: Path, what: str = "experiment file") -> dict[str, Any]:
    """Read a TOML file as nested fields.

    Raises:
        ConfigError: the file does not exist, cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{what} not found", where=path) from None
    except IsADirectoryError:
        raise _a_folder(path, what) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:  # invalid TOML, or text that is not UTF-8
        raise ConfigError(f"not valid TOML ({error})", where=path) from None


def _a_folder(path: Path, what: str) -> ConfigError:
    inside = path / "experiment.toml"
    cure = f"Name {inside}; to go on with a run: --resume --out {shlex.quote(str(path))}"
    return ConfigError(
        "a folder instead of a file",
        where=path,
        expected=f"{what}, a TOML file",
        cure=cure if inside.is_file() else None,
    )


def make_experiment_from_text(text: str, *, where: str) -> Experiment:
    """Read an experiment that arrived as a message; its paths are left unchanged.

    Raises:
        ConfigError: as `load_experiment`.
    """
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid TOML ({error})", where=where) from None
    return make_experiment(fields, where=where, base=None)


def make_experiment(
    fields: Mapping[str, Any], *, where: str = "experiment", base: Path | None = Path()
) -> Experiment:
    """Build an Experiment from nested fields; paths are relative to `base`, if it is given.

    Raises:
        ConfigError: as `load_experiment`.
    """
    fields = _with_preset(fields, where)
    try:
        # As JSON, because pydantic's strict mode for JSON rejects "3" and true as numbers and still
        # accepts lists for tuples.
        text = json.dumps(fields, default=str)
        experiment = Experiment.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise explained_fault(error, where, Experiment) from None
    return experiment if base is None else _resolve_paths(experiment, base)


def _with_preset(fields: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Merge an experiment's fields over the preset of the method that it names, if any."""
    name = fields.get("method", "")
    if not isinstance(name, str) or not name:
        return fields  # a value that is not a name is refused when types are checked
    if name not in METHODS:
        raise unknown_name("method", name, METHODS, where=where)
    return laid_under(METHODS[name].fields, fields)


def to_toml(experiment: Experiment) -> str:
    """Write an experiment as TOML from which `load_experiment` reads an equal experiment."""
    return fields_to_toml(experiment.model_dump(mode="json"))


def fields_to_toml(fields: Mapping[str, Any]) -> str:
    """Write nested fields as TOML."""
    lines: list[str] = []
    _write_table(fields, "", lines)
    return "\n".join(lines).strip() + "\n"


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested fields to their dotted names.

    >>> dotted({"training": {"lr": 0.1, "prox": {"mu": 0.2}}})
    {'training.lr': 0.1, 'training.prox.mu': 0.2}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def make_evaluation(overrides: Sequence[str]) -> EvaluationConfig:
    """Build the section `evaluation` from overrides of the form `evaluation.key=value` alone.

    Raises:
        ConfigError: as `load_experiment`, or an override of another section.
    """
    fields: dict[str, Any] = {}
    for override in overrides:
        if not override.strip().startswith("evaluation."):
            raise ConfigError(
                "without an experiment, --set can only set how to score",
                got=repr(override),
                expected="evaluation.key=value",
            )
        apply_override(fields, override)
    return make_experiment(fields, where="--set", base=None).evaluation


def apply_override(fields: dict[str, Any], override: str) -> None:
    """Apply an override `section.key=value` to nested fields; the value is TOML or a bare word.

    Raises:
        ConfigError: the override does not have this form.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set takes section.key=value", got=repr(override))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()  # a bare word is a string: --set model.name=bisenetv2
    *parents, last = key.strip().split(".")
    table = fields
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: '{parent}' is not a table that has keys", got=override)
    table[last] = value


def explained_fault(error: ValidationError, where: str, section: type[Section]) -> ConfigError:
    """Describe what is wrong with fields of a section, with the nearest key to an unknown one."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if path in RENAMED:
        return ConfigError(f"'{path}' has been renamed", where=where, expected=f"'{RENAMED[path]}'")
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        keys = _known_keys(first["loc"][:-1], section)
        near = difflib.get_close_matches(key, keys, n=1)
        near = near or (_elsewhere(key) if section is Experiment else [])
        known = ", ".join(sorted(keys))
        return ConfigError(
            f"unknown key '{path}'",
            where=where,
            expected=f"one of: {known}",
            cure=f"Did you mean '{near[0]}'?" if near else None,
        )
    what = first["msg"].removeprefix("Value error, ")
    got = repr(first["input"]) if path else None
    return ConfigError(f"{path}: {what}" if path else what, where=where, got=got)


RENAMED = {
    "federation.conditions": "federation.faults",
    "training.fix_norms_after": "training.freeze_bn_after",
}
"""Option names of earlier versions, with today's names."""


def _known_keys(location: Sequence[int | str], of: type[Section]) -> list[str]:
    section: Any = of
    for part in location:
        if isinstance(part, int):
            continue
        section = section.model_fields[part].annotation
        if getattr(section, "__args__", None):  # tuple[SourceConfig, ...]
            section = section.__args__[0]
    return list(section.model_fields)


def _elsewhere(key: str) -> list[str]:
    """Return the option of this name in another section: the only one, or the one in training.

    >>> _elsewhere("local_epochs"), _elsewhere("kind")
    (['training.local_epochs'], [])
    """
    names = [*dotted(Experiment().model_dump(mode="json"))]
    found = [name for name in names if name.rpartition(".")[2] == key]
    return found if len(found) == 1 else [n for n in found if n == f"training.{key}"]


def _resolve_paths(experiment: Experiment, base: Path) -> Experiment:
    def source(config: SourceConfig) -> SourceConfig:
        return config.model_copy(update={"root": _resolve(config.root, base)})

    data = experiment.data.model_copy(
        update={
            "sources": tuple(source(s) for s in experiment.data.sources),
            "evaluation": tuple(source(s) for s in experiment.data.evaluation),
            "cache": _resolve(experiment.data.cache, base),
            "label_space": _resolve_space(experiment.data.label_space, base),
        }
    )
    partition = experiment.partition
    subset = partition.label_subset
    partition = partition.model_copy(
        update={
            "file": _resolve(partition.file, base),
            "label_subset": subset.model_copy(update={"file": _resolve(subset.file, base)}),
        }
    )
    model = experiment.model.model_copy(update={"start": _resolve(experiment.model.start, base)})
    pretrain = experiment.pretrain.model_copy(
        update={"sources": tuple(source(s) for s in experiment.pretrain.sources)}
    )
    update = {"data": data, "partition": partition, "model": model, "pretrain": pretrain}
    return experiment.model_copy(update=update)


_PATHS = (
    ("data", "cache"),
    ("data", "label_space"),
    ("partition", "file"),
    ("partition", "label_subset", "file"),
    ("model", "start"),
)


def with_resolved_paths(fields: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Resolve the paths in fields before validation, as `make_experiment` does later."""
    resolved = {name: dict(v) if isinstance(v, dict) else v for name, v in fields.items()}
    if isinstance(partition := resolved.get("partition"), dict):
        resolved["partition"] = partition = dict(partition)
        if isinstance(subset := partition.get("label_subset"), dict):
            partition["label_subset"] = dict(subset)
    for *sections, name in _PATHS:
        table: Any = resolved
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(table.get(name), str):
            resolve = _resolve_space if name == "label_space" else _resolve
            table[name] = resolve(table[name], base)
    for section, name in (("data", "sources"), ("data", "evaluation"), ("pretrain", "sources")):
        table = resolved.get(section)
        if isinstance(table, dict) and isinstance(table.get(name), list):
            table[name] = [_with_root(source, base) for source in table[name]]
    return resolved


def _with_root(source: Any, base: Path) -> Any:
    if not isinstance(source, dict) or not isinstance(source.get("root"), str):
        return source
    return {**source, "root": _resolve(source["root"], base)}


def _resolve_space(name: str, base: Path) -> str:
    """Treat a name that ends in .toml as the path of a classes.toml, and any other as a name."""
    return _resolve(name, base) if name.lower().endswith(".toml") else name


def _resolve(text: str, base: Path) -> str:
    if not text:
        return ""
    if "\0" in text:
        raise ConfigError("a path cannot have a NUL character", got=repr(text))
    literal = base / text  # a folder may be called "$a": a path in a run folder is already resolved
    return str((literal if os.path.exists(literal) else base / expanded(text)).resolve())


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    arrays = {k: v for k, v in table.items() if _is_table_array(v)}
    for key, value in table.items():
        if key not in nested and key not in arrays and value is not None:
            lines.append(f"{key} = {toml_value(value)}")
    for key, value in nested.items():
        lines.extend(["", f"[{prefix}{key}]"])
        _write_table(value, f"{prefix}{key}.", lines)
    for key, items in arrays.items():
        for item in items:
            lines.extend(["", f"[[{prefix}{key}]]"])
            _write_table(item, f"{prefix}{key}.", lines)


def _is_table_array(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def toml_value(value: Any) -> str:
    """Write a string, number, Boolean or list of those as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # JSON's strings, numbers and Booleans are valid TOML, except for surrogates and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
