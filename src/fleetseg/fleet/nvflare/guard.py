"""One process per kit: a second one with the same certificate is refused while the first is alive.

NVFlare treats a new registration of a name as a restart and drops the old one, which then looks
alive and receives nothing. Here each process reports where it runs. The server lets a process in
the same place take over a name at once, and one in another place only when the first has fallen
silent. The name is the one in the certificate: see `door`.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import NotAuthenticated

from fleetseg.fleet.nvflare.door import Door

_PLACE = "fleetseg_place"
_FRESH_S = 25.0  # more than two of NVFlare's heartbeats


class LocationReporter(FLComponent):  # type: ignore[misc]
    """On a vehicle: reports at registration which machine and folder it runs in."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Add the place, as a digest, to the registration."""
        if event_type in (EventType.SYSTEM_START, EventType.BEFORE_CLIENT_REGISTER):
            fl_ctx.set_prop(_PLACE, _place(), private=False, sticky=True)


class DuplicateKitGuard(FLComponent):  # type: ignore[misc]
    """On the server: tracks where each kit runs."""

    def __init__(self) -> None:
        super().__init__()
        self._door = Door()
        self._seen: dict[str, tuple[str, float]] = {}  # name -> place, time of last heartbeat

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Refuse a second place; note heartbeats."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            self._door.install(fl_ctx.get_engine().get_cell())
        peer, name = fl_ctx.get_peer_context(), self._door.sender
        if peer is None or not name:
            return
        place = peer.get_prop(_PLACE, "")
        known, seen_s = self._seen.get(name, (place, 0.0))
        now_s = time.monotonic()
        if event_type == EventType.CLIENT_REGISTER_RECEIVED:
            if place != known and now_s - seen_s < _FRESH_S:
                self.log_error(fl_ctx, f"kit {name} is in use at another place: refused")
                raise NotAuthenticated(f"kit {name} is in use at another place")
            self._seen[name] = place, now_s
        elif event_type == EventType.CLIENT_HEARTBEAT_RECEIVED and place == known:
            self._seen[name] = place, now_s
        elif event_type == EventType.CLIENT_QUIT and place == known:
            self._seen.pop(name, None)


def _place() -> str:
    """Return a digest of this machine and folder; by network address if there is no machine id."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = f"{uuid.getnode():x}"
    return hashlib.sha256(f"{machine} {os.getcwd()}".encode()).hexdigest()[:16]
