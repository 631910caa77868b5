"""The release that a fleet should use ("drive"), and the one that each vehicle reports to use.

fleet/models/       the published releases, and `current`: see fleet.held_releases
fleet/drives.json   per site: the release and digest that it reports, when, or why it refused
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetseg.errors import FleetSegError, UpdateRejected
from fleetseg.federation.messages import Failure
from fleetseg.federation.replies import read_failure
from fleetseg.files import write_atomic
from fleetseg.fleet.held_releases import (
    CURRENT,
    FOLDER,
    RECORD,
    HeldRelease,
    current_release,
    drive,
    read_told,
    store,
)
from fleetseg.fleet.parcels import pack, unpack
from fleetseg.fleet.server.dispatcher import TaskBatch, TaskDispatcher
from fleetseg.text import plain

DRIVES = "drives.json"


def publish_to(fleet: Path, number: int, folder: Path) -> HeldRelease:
    """Copy a release from a registry into a fleet's folder, for its vehicles to use.

    Raises:
        UpdateRejected: the files changed while they were copied.
        OSError: the release cannot be read or written.
    """
    names = [p.name for p in sorted(folder.iterdir()) if p.is_file() and _is_for_vehicles(p.name)]
    store(fleet / FOLDER, number, unpack(*pack(folder, names)))
    return drive(fleet / FOLDER, number)


def _is_for_vehicles(name: str) -> bool:
    """Return whether a file is sent to vehicles: the report of how a model was judged is not."""
    return not name.startswith(".") and name not in (RECORD, "release.html")


def offer_of(held: HeldRelease) -> tuple[dict[str, Any], bytes]:
    """Return the request that makes a vehicle use a release: its header and its bytes.

    Raises:
        OSError: the release cannot be read.
    """
    names = [p.name for p in sorted(held.folder.iterdir()) if _is_for_vehicles(p.name)]
    listed, payload = pack(held.folder, names)
    return {"what": "release", **held.told(), "files": listed}, payload


def read_drives(fleet: Path) -> dict[str, dict[str, Any]]:
    """Read which release each site last reported; empty if none has."""
    try:
        rows = json.loads((fleet / DRIVES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(rows, dict):
        return {}
    return {site: row for site, row in rows.items() if isinstance(row, dict)}


def note_drives(fleet: Path, site: str, told: Mapping[str, Any]) -> None:
    """Store the release that a site reports, or why it refused one; only if that is new."""
    rows = read_drives(fleet)
    known = {key: value for key, value in rows.get(site, {}).items() if key != "time"}
    if "refused" in told:  # it still uses the previous one
        told = {**{key: known[key] for key in ("release", "digest") if key in known}, **told}
    if known != dict(told):
        rows[site] = {**told, "time": round(time.time(), 1)}
        write_atomic(fleet / DRIVES, json.dumps(rows, indent=1) + "\n")


def taken(site: str, header: Mapping[str, Any], held: HeldRelease) -> dict[str, Any]:
    """Read a site's reply to an offer: the release it uses now, or why it refused."""
    try:
        failure = read_failure(site, header)
        told = read_told(header.get("drives"))
        if failure is None and told != held.told():
            raise UpdateRejected("malformed", "it does not say that it drives this release")
    except UpdateRejected as rejected:
        failure = Failure.refused(site, rejected)
    if failure is None:
        return told
    return {"refused": plain(f"{failure.reason}: {failure.detail}", 300), "offered": held.number}


@dataclass
class ReleaseOffers:
    """Offers the fleet's release to the vehicles of a running server, without ever waiting."""

    fleet: Path
    dispatcher: TaskDispatcher
    tell: Callable[[str], None] = lambda text: None
    _held: HeldRelease | None = None
    _stamp: int = -1  # modification time of `current`
    _segment: int = 0
    _batch: TaskBatch | None = None
    _asked: set[str] = field(default_factory=set)  # in this segment, about this release
    _said: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # in this segment

    def poll(self, drives: Mapping[str, Mapping[str, Any]], not_to: Collection[str] = ()) -> None:
        """Process replies, and offer the release to sites that use another one.

        `drives` has what each site reported when it enrolled in this segment. Problems with a
        release are reported and never end a run.
        """
        try:
            self._poll(drives, not_to)
        except (OSError, FleetSegError) as error:
            self.tell(f"the release cannot be handed out: {error}")

    def take_in(self) -> None:
        """Process the remaining replies, at the end of a run."""
        with suppress(OSError, FleetSegError):
            self._take_in()

    def _poll(self, drives: Mapping[str, Mapping[str, Any]], not_to: Collection[str]) -> None:
        self._take_in()
        if self._is_new() or self._segment != self.dispatcher.segment or self._batch is None:
            self._open()
        assert self._batch is not None
        for site, told in drives.items():
            if site not in self._said:
                self._note(site, told)
        if self._held is None:
            return
        told = self._held.told()
        lacking = {site for site, said in self._said.items() if said != told}
        if sites := sorted(lacking - self._asked - set(not_to)):
            self._asked.update(sites)
            self._batch.ask(*offer_of(self._held), sites)

    def _is_new(self) -> bool:
        """Read the release to use again if it may have changed; returns whether it may have."""
        try:
            stamp = (self.fleet / FOLDER / CURRENT).stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp == self._stamp:
            return False
        self._stamp, self._held = stamp, current_release(self.fleet / FOLDER)
        return True

    def _open(self) -> None:
        if self._batch is not None:
            self._batch.close()
        if self._segment != self.dispatcher.segment:
            self._said = {}
        self._segment, self._asked = self.dispatcher.segment, set()
        self._batch = TaskBatch(self.dispatcher)

    def _take_in(self) -> None:
        while self._batch is not None and (event := self._batch.next(0)) is not None:
            if event.what == "reply" and self._held is not None and event.site in self._asked:
                told = taken(event.site, event.header, self._held)
                self._note(event.site, told)
                if "refused" in told:
                    self.tell(f"{event.site} refuses release {self._held.number:04d}: "
                              f"{told['refused']}")  # fmt: skip

    def _note(self, site: str, told: Mapping[str, Any]) -> None:
        self._said[site] = told
        note_drives(self.fleet, site, told)
