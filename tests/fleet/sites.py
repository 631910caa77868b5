"""A fleet without a network: real trainers of sites, reached through a job that tests play."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fleet.job import Clock, Job, close, until

from fleetseg.errors import FleetSegError
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.sockets import Header, Listener, private_directory
from fleetseg.fleet.vehicle.site_data import SiteData
from fleetseg.fleet.vehicle.trainer import Trainer


@dataclass
class FakeNetwork:
    """Says what a test wants of the network."""

    back: frozenset[str] = frozenset()
    banned: frozenset[str] = frozenset()

    def trouble(self) -> str:
        return ""

    def fatal(self) -> FleetSegError | None:
        return None

    def returned(self) -> frozenset[str]:
        return self.back

    def revoked(self) -> frozenset[str]:
        return self.banned


@dataclass
class Sites:
    """Trainers by the names of their sites, each in a folder of its own."""

    folder: Path
    log: list[str] = field(default_factory=list)
    trainers: dict[str, Trainer] = field(default_factory=dict)

    def add(self, site: str, **data: Any) -> Trainer:
        own = self.own(site)
        own.mkdir(parents=True)
        SiteData(site, **data).write(own / "site-data.json")
        self.trainers[site] = Trainer(own, self.log.append)
        return self.trainers[site]

    def own(self, site: str) -> Path:
        """What `kit/fleetseg` is on a vehicle."""
        return self.folder / site / "fleetseg"

    def act(self, job: Job, site: str, header: Header, payload: bytes) -> None:
        job.sent(header["task"], site)
        job.beat(site, busy=header["task"])
        answer, data = self.trainers[site].answer(header, payload)
        job.reply(header["task"], site, answer, data)
        job.beat(site)

    @contextmanager
    def connected(
        self, there: Mapping[str, Trainer] | None = None, network: FakeNetwork | None = None
    ) -> Iterator[tuple[TaskDispatcher, FakeNetwork]]:
        """A dispatcher with one segment that these sites are in."""
        names = sorted(self.trainers if there is None else there)
        with dispatching(self.folder) as dispatcher:
            job = Job(dispatcher._listener.path, names, self.act)
            until(lambda: dispatcher.segment == 1, "the segment opens")
            try:
                yield dispatcher, network or FakeNetwork()
            finally:
                job.die()


@contextmanager
def dispatching(folder: Path, clock: Clock | None = None) -> Iterator[TaskDispatcher]:
    """A dispatcher that nobody has connected to."""
    sockets = private_directory()
    dispatcher = TaskDispatcher(
        Listener(sockets / "link"), MessageLog(folder / "ingress.jsonl"), clock or Clock()
    )
    try:
        yield dispatcher
    finally:
        close(dispatcher)
        with contextlib.suppress(OSError):
            sockets.rmdir()
