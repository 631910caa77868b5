"""An experiment: frozen, typed models read from TOML; an unknown key is an error with its cure.

Every default carries its unit in its name or its comment. `Experiment.digest` identifies the
experiment in run folders and checkpoints; nothing in an experiment can name code to run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from fleetseg.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class SourceConfig(_Section):
    """One data set on disk, or the synthetic one."""

    kind: str = "synthetic"  # a name in fleetseg.data.sources.SOURCES
    root: str = ""  # folder; "~", "${VARIABLE}" and paths relative to the TOML file are resolved
    split: str = "train"
    # Only for kind = "synthetic":
    cities: tuple[str, ...] = ()  # empty = all
    conditions: tuple[str, ...] = ()  # empty = all
    frames_per_drive: int = Field(default=12, ge=1)  # frames of each (city, condition) drive
    seed: int = 0  # of the painter, not of the training
    # Optional filter: only these drives (sequences) of the source, empty = all.
    sequences: tuple[str, ...] = ()
    limit: int = Field(default=0, ge=0)  # keep this many samples, evenly spaced; 0 = all


class PartitionConfig(_Section):
    """Who holds which sample."""

    kind: Literal["natural", "iid", "dirichlet", "file"] = "natural"
    by: Literal["sequence", "city", "condition", "domain", "dataset"] = "sequence"  # natural
    clients: int = Field(default=0, ge=0)  # wished number of clients; 0 = one per natural group
    piece: int = Field(default=0, ge=0)  # natural: wished samples per client; 0 = whole groups
    alpha: float = Field(default=0.5, gt=0)  # dirichlet concentration; small = skewed
    min_size: int = Field(default=2, ge=1)  # dirichlet: fewest samples per client
    file: str = ""  # file: a LEAF-style JSON file or a folder of them
    holdout: float = Field(
        default=0.0, ge=0, lt=1
    )  # share of each client's frames kept for testing


class DataConfig(_Section):
    """What the fleet sees and what the server scores on."""

    label_space: str = "camvid11"
    size: tuple[PositiveInt, PositiveInt] = (192, 256)  # working (height, width) in pixels
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    evaluation: tuple[SourceConfig, ...] = ()  # held-out sets of the server
    cache: str = ""  # folder; empty = $FLEETSEG_CACHE or the user's cache folder
    max_bad_share: float = Field(default=0.05, ge=0, le=1)  # above it, a client abstains


class ModelConfig(_Section):
    """Which network, and from which weights it starts."""

    name: str = "fast_scnn"  # bisenetv2, fast_scnn, zoo:<arch>/<encoder>
    pretrained: Literal["", "imagenet"] = ""
    start: str = ""  # a model folder of an earlier run to start from


class TrainingConfig(_Section):
    """What a client does with its samples in one round."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0)  # peak learning rate, before the schedule
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)  # never on norms and biases
    head_lr_factor: float = Field(default=1.0, gt=0)  # learning rate of heads over that of the rest
    clip_grad_norm: float = Field(default=0.0, ge=0)  # L2, 0 = off
    optimiser_state: Literal["reset", "kept"] = "reset"  # between the rounds of a client
    batch_size: int = Field(default=8, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    local_steps: int = Field(default=0, ge=0)  # > 0: exactly this many steps, overrides epochs
    schedule: Literal["constant", "poly", "cosine"] = "poly"  # over global rounds
    warmup_rounds: int = Field(default=0, ge=0)
    # FixBN: past this share of the rounds, batch norms train with the global running statistics
    # instead of each batch's, and leave them as they are; 1 = never.
    fix_norms_after: float = Field(default=1.0, ge=0, le=1)
    loss: str = "ce"  # ce, ohem, focal, dice, lovasz, or a sum such as "ce+dice"
    class_weights: Literal["none", "local", "fleet"] = "none"  # 1/ln(1.1 + pixel share)
    ohem_fraction: float = Field(default=0.25, gt=0, le=1)  # of the valid pixels
    focal_gamma: float = Field(default=2.0, ge=0)
    aux_weight: float = Field(default=1.0, ge=0)  # of each auxiliary head's loss
    crop: tuple[PositiveInt, PositiveInt] | None = None  # (height, width); None = the working size
    scale: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.5)  # random scale range; (1, 1) = off
    flip: bool = True
    colour_jitter: float = Field(default=0.25, ge=0, le=1)  # 0 = off


class ConditionsConfig(_Section):
    """Simulated trouble on a virtual clock: vehicles that vanish and vehicles that are slow."""

    dropout: float = Field(default=0.0, ge=0, le=1)  # chance per client and round to vanish
    stragglers: float = Field(default=0.0, ge=0, le=1)  # share of clients that are slow
    slowdown: float = Field(default=10.0, ge=1)  # how many times slower a straggler is
    seconds_per_image: float = Field(default=0.1, gt=0)  # virtual, of a normal vehicle
    megabytes_per_s: float = Field(default=1.0, gt=0)  # virtual link, each way


class FederationConfig(_Section):
    """What the server does."""

    rounds: int = Field(default=10, ge=1)
    cohort: float = Field(default=1.0, gt=0)  # <= 1: share of the fleet; > 1: number of clients
    weights: Literal["images", "pixels", "uniform"] = "images"
    server_lr: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)  # FedAvgM
    quorum: float = Field(default=0.5, ge=0, le=1)  # share of the cohort that must be usable
    max_failed_rounds: int = Field(default=3, ge=1)  # in a row without quorum, then the run ends
    deadline_s: float = Field(default=0.0, ge=0)  # 0 = none; virtual time when conditions are set
    max_update_norm: float = Field(default=0.0, ge=0)  # L2 of the trainable delta, 0 = off
    conditions: ConditionsConfig = ConditionsConfig()


class StopConfig(_Section):
    """When to stop before the last round; 0 = never for that reason."""

    target_miou: float = Field(default=0.0, ge=0, le=1)
    patience: int = Field(default=0, ge=0)  # evaluations without a gain of min_gain
    min_gain: float = Field(default=0.001, ge=0)
    minutes: float = Field(default=0.0, ge=0)
    megabytes: float = Field(default=0.0, ge=0)  # up and down together


class EvaluationConfig(_Section):
    """When and where the global model is scored."""

    every: int = Field(
        default=1, ge=0
    )  # rounds; the last round is always scored; 0 = only the last
    on_clients: bool = False  # at the end: every client's own (held-out if any) samples
    by: Literal["domain", "dataset", "city", "condition", "sequence"] = "domain"  # groups of scores
    batch_size: int = Field(default=8, ge=1)


class BaselineConfig(_Section):
    """What `--baseline centralised` is allowed."""

    # Written by fleetseg into the run folder of a baseline, so that it is not taken for a fleet's.
    kind: Literal["", "centralised", "local"] = ""
    steps_share: float = Field(default=1.0, gt=0)  # of the federated run's gradient steps


class EngineConfig(_Section):
    """Where clients run."""

    kind: Literal["auto", "inprocess", "workers"] = "auto"
    workers: int = Field(default=0, ge=0)  # 0 = one per core
    threads: int = Field(default=1, ge=1)  # per client; part of the result, so never automatic
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class Experiment(_Section):
    """All that defines a run."""

    name: str = "experiment"
    seed: int = 0
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    stop: StopConfig = StopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    engine: EngineConfig = EngineConfig()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("a name is letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.federation.cohort > 1 and self.federation.cohort != int(self.federation.cohort):
            raise ValueError("federation.cohort above 1 is a number of clients and must be whole")
        if self.partition.kind == "file" and not self.partition.file:
            raise ValueError("partition.kind = 'file' needs partition.file")
        if self.training.scale[0] > self.training.scale[1]:
            raise ValueError("training.scale is (smallest, largest)")
        if self.training.nesterov and self.training.momentum == 0:
            raise ValueError("training.nesterov needs training.momentum > 0")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what defines the result: all but the engine's kind and number of workers."""
        fields = self.model_dump(mode="json")
        for key in ("kind", "workers"):
            del fields["engine"][key]
        del fields["data"]["cache"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply `section.key=value` overrides (values in TOML).

    Raises:
        ConfigError: with the file, the key, what was got, what was expected and the nearest match.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("experiment file not found", where=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:  # wrong TOML, or text that is not UTF-8
        raise ConfigError(f"not valid TOML ({error})", where=path) from None
    for override in overrides:
        _apply_override(fields, override)
    return make_experiment(fields, where=str(path), base=path.parent)


def make_experiment(
    fields: Mapping[str, Any], *, where: str = "experiment", base: Path = Path()
) -> Experiment:
    """Build an Experiment from nested fields; paths are taken relative to `base`."""
    try:
        # As JSON, because there pydantic can be strict ("3" and true are no numbers) and still take
        # lists for tuples.
        text = json.dumps(fields, default=str)
        experiment = Experiment.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _config_error(error, where) from None
    return _resolve_paths(experiment, base)


def to_toml(experiment: Experiment) -> str:
    """Write an experiment as TOML that `load_experiment` reads back to an equal experiment."""
    lines: list[str] = []
    _write_table(experiment.model_dump(mode="json"), "", lines)
    return "\n".join(lines).strip() + "\n"


def _apply_override(fields: dict[str, Any], override: str) -> None:
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


def _config_error(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        near = difflib.get_close_matches(key, _known_keys(first["loc"][:-1]), n=1)
        known = ", ".join(sorted(_known_keys(first["loc"][:-1])))
        return ConfigError(
            f"unknown key '{path}'",
            where=where,
            expected=f"one of: {known}",
            cure=f"Did you mean '{near[0]}'?" if near else None,
        )
    what = first["msg"].removeprefix("Value error, ")
    got = repr(first["input"]) if path else None
    return ConfigError(f"{path}: {what}" if path else what, where=where, got=got)


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: Any = Experiment
    for part in location:
        if isinstance(part, int):
            continue
        section = section.model_fields[part].annotation
        if getattr(section, "__args__", None):  # tuple[SourceConfig, ...]
            section = section.__args__[0]
    return list(section.model_fields)


def _resolve_paths(experiment: Experiment, base: Path) -> Experiment:
    def source(config: SourceConfig) -> SourceConfig:
        return config.model_copy(update={"root": _resolve(config.root, base)})

    data = experiment.data.model_copy(
        update={
            "sources": tuple(source(s) for s in experiment.data.sources),
            "evaluation": tuple(source(s) for s in experiment.data.evaluation),
            "cache": _resolve(experiment.data.cache, base),
        }
    )
    partition = experiment.partition.model_copy(
        update={"file": _resolve(experiment.partition.file, base)}
    )
    model = experiment.model.model_copy(update={"start": _resolve(experiment.model.start, base)})
    return experiment.model_copy(update={"data": data, "partition": partition, "model": model})


def _resolve(text: str, base: Path) -> str:
    if not text:
        return ""
    expanded = os.path.expandvars(os.path.expanduser(text))
    missing = re.search(r"\$\{?(\w+)", expanded)
    if missing:
        raise ConfigError(
            f"the environment variable {missing[1]} is not set",
            where=text,
            cure=f"Set it: export {missing[1]}=/folder/with/the/data",
        )
    return str((base / expanded).resolve())


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    arrays = {k: v for k, v in table.items() if _is_table_array(v)}
    for key, value in table.items():
        if key not in nested and key not in arrays and value is not None:
            lines.append(f"{key} = {_toml_value(value)}")
    for key, value in nested.items():
        lines.extend(["", f"[{prefix}{key}]"])
        _write_table(value, f"{prefix}{key}.", lines)
    for key, items in arrays.items():
        for item in items:
            lines.extend(["", f"[[{prefix}{key}]]"])
            _write_table(item, f"{prefix}{key}.", lines)


def _is_table_array(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's too, but for surrogates and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
