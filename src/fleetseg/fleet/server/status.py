"""The status that a server writes for `fleetseg fleet status` and `fleetseg watch`.

status.json   that the server runs, and its run: a few lines, every two seconds
sites.json    which sites are there, working or refused, and what each holds: only when that has
              changed, and less often in large fleets

Neither has to survive a crash, so no write waits for the disk.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fleetseg.errors import FleetSegError
from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.provision import Fleet
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.server.operations import ONLINE_S
from fleetseg.fleet.threads import start_thread

if TYPE_CHECKING:  # `fleetseg watch` needs no NVFlare
    from fleetseg.fleet.nvflare.network import NvflareNetwork

_EVERY_S = 2.0
_SITES_A_SECOND = 100  # most sites written per second
HEAD, SITES = "status.json", "sites.json"


@contextmanager
def status_updated(
    fleet: Fleet,
    spec: RunSpec,
    engine: FleetEngine,
    dispatcher: TaskDispatcher,
    network: NvflareNetwork,
) -> Iterator[None]:
    """Keep a fleet's status up to date while the block runs."""
    over, status = threading.Event(), StatusFiles(fleet)

    def update() -> None:
        while not over.wait(_EVERY_S):
            with contextlib.suppress(OSError, RuntimeError, FleetSegError):
                status.write(
                    head_of(spec, dispatcher, network), sites_of(engine, dispatcher, network)
                )

    thread = start_thread(update, "fleetseg-status", dispatcher.fail)
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        with contextlib.suppress(OSError, FleetSegError):
            head = {**head_of(spec, dispatcher, network), "running": False}
            status.write(head, sites_of(engine, dispatcher, network))


def head_of(spec: RunSpec, dispatcher: TaskDispatcher, network: NvflareNetwork) -> dict[str, Any]:
    """Collect the server's own status."""
    return {
        "time": time.time(),
        "running": True,
        "run": spec.run,
        "classes": list(spec.space.classes),
        "segment": dispatcher.segment,
        "trouble": network.trouble(),
    }


def sites_of(
    engine: FleetEngine, dispatcher: TaskDispatcher, network: NvflareNetwork
) -> dict[str, dict[str, Any]]:
    """Collect the sites' status and what they hold; a site that is "here" was seen just now."""
    roster, now = engine.roster, time.time()
    sites: dict[str, dict[str, Any]] = {}
    for name, age_s in network.registered().items():
        sites.setdefault(name, {})["last_seen"] = now - age_s
    for name, known in list(dispatcher.sites.items()):
        silent_s = dispatcher.silent_s(name)
        if silent_s != float("inf"):
            seen = sites.setdefault(name, {}).get("last_seen", 0.0)
            sites[name]["last_seen"] = max(seen, now - silent_s)
            sites[name]["busy"] = known.busy
    for fields in sites.values():
        fields["here"] = now - fields["last_seen"] < ONLINE_S
    for vehicle, enrolment in roster.enrolled.items():
        holds = {
            "images": enrolment.num_images,
            "pixels": enrolment.num_pixels,
            "histogram": list(enrolment.histogram_C),
            "abstains": enrolment.abstains,
        }
        sites.setdefault(roster.site_of[vehicle], {}).setdefault("vehicles", {})[vehicle] = holds
    for site, failure in roster.refused.items():
        sites.setdefault(site, {})["refused"] = f"{failure.reason}: {failure.detail}"
    for site, why in network.quarantined().items():
        sites.setdefault(site, {})["quarantined"] = why
    for site, machine in roster.machines.items():
        sites.setdefault(site, {})["machine"] = machine
    for site, round_ in roster.last_round.items():
        sites.setdefault(site, {})["last_round"] = round_
    return sites


class StatusFiles:
    """Writes the two files of one fleet, no more often than needed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._written: dict[str, dict[str, Any]] | None = None
        self._next_s = float("-inf")
        self._head_s = 0.0  # when the head was last written; sites "here" were seen then

    def write(self, head: Mapping[str, Any], sites: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the server's status, and the sites if they have changed and it is time to."""
        if self._written is None:
            self._written = self._of_before(str(head["run"]))
        merged = self._merged(sites)
        if head["time"] < self._head_s:
            self._next_s = float("-inf")  # the clock was set back
        # Also at the start and at the end, as it could not be written later.
        due = head["time"] >= self._next_s or not head["running"]
        if due and _lasting(merged) != _lasting(self._written):
            self._save(SITES, {"run": head["run"], "sites": merged})
            self._written = merged
            self._next_s = head["time"] + len(merged) / _SITES_A_SECOND
        self._save(HEAD, head)
        self._head_s = head["time"]

    def _merged(self, sites: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Add what is known about sites that are away."""
        known = {name: self._away(fields) for name, fields in (self._written or {}).items()}
        return {n: {**known.get(n, {}), **sites.get(n, {})} for n in {**known, **sites}}

    def _away(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what stays known about a site that is not heard of any more."""
        seen = {"last_seen": max(fields["last_seen"], self._head_s)} if fields.get("here") else {}
        # "quarantined" and "busy" are reported again for as long as they hold.
        lasting = {k: v for k, v in fields.items() if k not in ("quarantined", "busy")}
        return {**lasting, **seen, "here": False}

    def _of_before(self, run: str) -> dict[str, dict[str, Any]]:
        known = read_status(self._fleet)
        sites: dict[str, dict[str, Any]] = known.get("sites", {}) if known.get("run") == run else {}
        return sites

    def _save(self, name: str, fields: Mapping[str, Any]) -> None:
        write_atomic(self._fleet.folder / name, json.dumps(fields) + "\n", durable=False)


def _lasting(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Leave out when a site that is here was last seen, as that is always just now."""
    left_out = {True: ("last_seen",), False: ()}
    return {
        name: {k: v for k, v in fields.items() if k not in left_out[bool(fields.get("here"))]}
        for name, fields in sites.items()
    }


def read_status(fleet: Fleet) -> dict[str, Any]:
    """Read the last status, including "sites"; empty if there never was one."""
    status = _read(fleet, HEAD)
    written = _read(fleet, SITES)
    if status and written.get("run") == status.get("run") and "sites" not in status:
        sites = written.get("sites")
        status["sites"] = sites if isinstance(sites, dict) else {}
    for fields in status.get("sites", {}).values():
        if fields.get("here"):
            fields["last_seen"] = max(fields.get("last_seen", 0.0), status.get("time", 0.0))
    return status


def _read(fleet: Fleet, name: str) -> dict[str, Any]:
    try:
        fields = json.loads((fleet.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def is_running(status: Mapping[str, Any], now_s: float) -> bool:
    """Return whether the server that wrote a status is running; a killed one could not say so."""
    return bool(status.get("running")) and now_s - status.get("time", 0) < ONLINE_S
