"""Deliver a release to the vehicles of a networked fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleetseg.errors import CheckpointError
from fleetseg.files import explained
from fleetseg.fleet.held_releases import HeldRelease
from fleetseg.fleet.nvflare.provision import Fleet, read_fleet
from fleetseg.fleet.server.errands import Errand, Errands
from fleetseg.fleet.server.releases import note_drives, offer_of, publish_to, read_drives, taken
from fleetseg.fleet.server.serve import ServerRuns, connected
from fleetseg.release import registry

_GATHER_S = 20.0  # for all vehicles to connect, before the connected ones get it
_LOOK_S = 0.5


@dataclass(frozen=True)
class Published:
    """Which vehicles drive a release, and which do not."""

    number: int
    digest: str  # over the digests of its files
    drives: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)  # vehicle -> reason
    missing: Mapping[str, str] = field(default_factory=dict)  # vehicles that have not answered
    server_runs: bool = False  # it continues to hand out the release

    @property
    def is_complete(self) -> bool:
        """Whether every vehicle of the fleet drives it."""
        return not self.refused and not self.missing


def publish_to_vehicles(
    models: Path,
    number: int | None,
    fleet: Path,
    *,
    wait_s: float,
    tell: Callable[[str], None] = lambda text: None,
) -> Published:
    """Have the vehicles of a fleet drive a release of a registry; without a number, the current.

    If the fleet's server is running, that server hands it out at the beginning of rounds; otherwise
    one is started for it. Waits up to `wait_s` seconds for absent vehicles; a vehicle that connects
    later gets the release from the next server, or when it is published again.

    Raises:
        ConfigError: no such fleet, registry or release.
        ModelError: the release has changed since it was released.
        CheckpointError: it cannot be written into the fleet's folder.
        EngineError: the fleet's server cannot be started, or no vehicle connects to it.
    """
    known, release = read_fleet(fleet), registry.chosen(models, number)
    try:
        held = publish_to(known.folder, release.number, release.folder)
    except OSError as error:
        told = explained(error, known.folder) or CheckpointError(str(error), where=known.folder)
        raise told from error
    try:
        return _hand_out(known, held, wait_s, tell)
    except ServerRuns:
        tell(f"the server of {known.folder} runs and hands it out, at the beginning of a round")
        return _watch(known, held, wait_s)


def _hand_out(
    fleet: Fleet, held: HeldRelease, wait_s: float, tell: Callable[[str], None]
) -> Published:
    """Start the fleet's server, and ask every vehicle to drive the release."""
    drives: list[str] = []
    refused: dict[str, str] = {}
    with connected(fleet, fleet.folder, min(wait_s, _GATHER_S)) as (dispatcher, network):
        errands = {"release": Errand(*offer_of(held))}
        asking = Errands(dispatcher, network, errands, fleet.active, absent_s=wait_s, tell=tell)
        for answered in asking:
            told = taken(answered.site, answered.header, held)
            note_drives(fleet.folder, answered.site, told)
            if "refused" in told:
                refused[answered.site] = told["refused"]
                tell(f"{answered.site} refuses it: {told['refused']}")
            else:
                drives.append(answered.site)
                tell(f"{answered.site} drives release {held.number:04d}")
    return Published(held.number, held.digest, tuple(sorted(drives)), refused, asking.missing)


def _watch(fleet: Fleet, held: HeldRelease, wait_s: float) -> Published:
    """Wait for what a running server records about each vehicle."""
    until_s = time.monotonic() + wait_s
    while True:
        published = _noted(fleet, held)
        if not published.missing or time.monotonic() > until_s:
            return published
        time.sleep(_LOOK_S)


def _noted(fleet: Fleet, held: HeldRelease) -> Published:
    rows, told = read_drives(fleet.folder), held.told()
    drives: list[str] = []
    refused: dict[str, str] = {}
    missing: dict[str, str] = {}
    for site in fleet.active:
        row = rows.get(site, {})
        if row.get("offered") == held.number and "refused" in row:
            refused[site] = str(row["refused"])
        elif {key: row.get(key) for key in told} == told:
            drives.append(site)
        else:
            missing[site] = "no answer yet"
    return Published(held.number, held.digest, tuple(drives), refused, missing, server_runs=True)
