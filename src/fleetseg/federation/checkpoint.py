"""Checkpoints: one file per round, committed by a rename, with a digest that is verified on read.

A checkpoint holds the server's state (the global model, the state of the server optimiser and of
publishing, facts of the fleet, what is remembered about clients) and the record of its round.
Nothing else is needed to resume: all randomness is derived (see fleetseg.rng).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fleetseg.errors import CheckpointError, DamagedFile
from fleetseg.federation.known import Memory
from fleetseg.federation.saving import NotIntact, from_bytes, to_bytes
from fleetseg.federation.tensors import ModelState
from fleetseg.files import set_aside, write_atomic
from fleetseg.learning.inputs import Facts

FORMAT_VERSION = 4
KEEP = 3
_SLOT, _FACT, _PUBLISHED, _HELD = "slot/", "fact/", "published/", "held/"
_CLUSTER = "cluster/"
_REFERENCE = "reference/"


@dataclass(frozen=True)
class ServerState:
    """All that the server carries from one round to the next."""

    round: int  # rounds finished
    model: ModelState  # and a method's extras: see sharing.Exchange.server
    slots: Mapping[str, Tensor] = field(default_factory=dict)  # state of the server optimiser
    failed_rounds: int = 0  # consecutive rounds without quorum
    facts: Facts = field(default_factory=dict)  # facts of the fleet, made before round 1
    published: Mapping[str, Tensor] = field(default_factory=dict)  # see `publishing`
    held: Mapping[str, Tensor] = field(default_factory=dict)  # by vehicles: see `downlink`
    references: Mapping[str, Tensor] = field(default_factory=dict)  # models: see `references`
    # What the sampler, weights, fleet and clusters remember.
    memory: Mapping[str, Memory] = field(default_factory=dict)
    clusters: Mapping[str, Tensor] = field(default_factory=dict)  # see `cluster_state`
    lineage: str = ""  # the history of rounds behind this state: see `lineage`


def save_checkpoint(
    folder: Path, state: ServerState, record: Mapping[str, Any], *, experiment: str, layout: str
) -> Path:
    """Write `round-NNNNNN.safetensors` and delete all but the newest few checkpoints.

    `experiment` and `layout` are digests; `load_checkpoint` must be given the same ones.
    """
    tensors = {
        "values": state.model.values_F,
        "counters": state.model.counters_K,
        **{_SLOT + name: vector_T for name, vector_T in state.slots.items()},
        **{_FACT + name: torch.from_numpy(fact) for name, fact in state.facts.items()},
        **{_PUBLISHED + name: vector_F for name, vector_F in state.published.items()},
        **{_HELD + name: tensor for name, tensor in state.held.items()},
        **{_CLUSTER + name: tensor for name, tensor in state.clusters.items()},
        **{_REFERENCE + name: tensor for name, tensor in state.references.items()},
    }
    meta = {
        "version": FORMAT_VERSION,
        "round": state.round,
        "failed_rounds": state.failed_rounds,
        "lineage": state.lineage,
        "experiment": experiment,
        "layout": layout,
        "memory": {owner: dict(tables) for owner, tables in state.memory.items()},
        "record": dict(record),
    }
    path = folder / f"round-{state.round:06d}.safetensors"
    write_atomic(path, to_bytes(tensors, json.dumps(meta, sort_keys=True)))
    for old in list_checkpoints(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints in a folder, newest first."""
    named = re.compile(r"round-\d{6}\.safetensors")
    return sorted((p for p in folder.glob("round-*") if named.fullmatch(p.name)), reverse=True)


def load_checkpoint(
    path: Path, *, experiment: str, layout: str
) -> tuple[ServerState, dict[str, Any]]:
    """Read a checkpoint and the record of its round.

    Raises:
        CheckpointError: if the file is damaged, or belongs to another experiment or model.
    """
    tensors, meta = _read(path)
    if meta["version"] != FORMAT_VERSION:
        raise CheckpointError(
            "checkpoint of another version",
            where=path,
            got=meta["version"],
            expected=FORMAT_VERSION,
            cure="Finish the run with the version of fleetseg that started it",
        )
    for name, wanted in (("experiment", experiment), ("layout", layout)):
        if meta[name] != wanted:
            raise CheckpointError(
                f"the run was made with another {name}",
                where=path,
                got=meta[name][:12],
                expected=wanted[:12],
                cure="Resume with the run folder's own experiment.toml, or choose a new --out",
            )
    model = ModelState(tensors["values"], tensors["counters"])
    state = ServerState(
        meta["round"],
        model,
        _named(tensors, _SLOT),
        meta["failed_rounds"],
        {name: fact.numpy() for name, fact in _named(tensors, _FACT).items()},
        _named(tensors, _PUBLISHED),
        _named(tensors, _HELD),
        _named(tensors, _REFERENCE),
        meta["memory"],
        _named(tensors, _CLUSTER),
        meta.get("lineage", ""),  # earlier versions had none
    )
    return state, meta["record"]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        # Read at once: errors from a memory-mapped parse do not tell damage from transient faults.
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile("damaged checkpoint (it is missing)", where=path) from None
    except OSError as error:  # the file may be intact: no permission, too many open files
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=path) from None
    try:
        tensors, meta = from_bytes(data)
    except NotIntact as error:
        raise DamagedFile(f"damaged checkpoint ({error})", where=path) from None
    return tensors, json.loads(meta)


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def load_newest(
    folder: Path, *, experiment: str, layout: str
) -> tuple[ServerState, dict[str, Any], list[str]]:
    """Read the newest intact checkpoint; newer damaged ones are reported and renamed.

    Nothing is renamed until an intact one is found, nor if one cannot be read at the moment.

    Raises:
        CheckpointError: if there is none, the newest cannot be read, or it belongs to another
            experiment.
    """
    damaged: dict[Path, str] = {}
    for path in list_checkpoints(folder):
        try:
            state, record = load_checkpoint(path, experiment=experiment, layout=layout)
        except DamagedFile as error:
            damaged[path] = str(error)
            continue
        for bad in damaged:
            set_aside(bad)
        return state, record, list(damaged.values())
    raise CheckpointError(
        "no intact checkpoint",
        where=folder,
        got="; ".join(damaged.values()) or "an empty folder",
        cure="Start a new run with another --out",
    )
