"""Answers of a thin vehicle, and the parts of fleetseg and NVFlare that send them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.private.fed.client.client_run_manager import ClientRunManager
from nvflare.private.fed.client.fed_client import FederatedClient

from fleetseg.failures import failure_header
from fleetseg.fleet.nvflare.executor import TrainerExecutor
from fleetseg.fleet.sockets import Header, header_text

NAME, ROUND = "car-0000", "99999999"  # placeholders in prepared answers


@dataclass(frozen=True)
class Answers:
    """Prepared replies of a trainer."""

    hello: str
    update: bytes

    @classmethod
    def read(cls, folder: Path) -> Answers:
        """Read the files that `fleet_under_test.prepare_answers` writes."""
        return cls((folder / "hello.json").read_text(), (folder / "update.bin").read_bytes())

    def to(self, header: Header, site: str) -> tuple[bytes, bytes]:
        """Answer a request in the name of a site."""
        if header["what"] == "hello":
            return self.hello.replace(NAME, site).encode(), b""
        if header["what"] != "train":
            return header_text(failure_header("abstained", "thin", "no such task here")), b""
        round_ = int(header["round"])
        head, tail = self.update[: 1 << 16], self.update[1 << 16 :]
        head = head.replace(NAME.encode(), site.encode())
        head = head.replace(ROUND.encode(), str(round_).ljust(len(ROUND)).encode())
        return header_text({"update": round_}), head + tail


class ThinExecutor(TrainerExecutor):  # type: ignore[misc]
    """fleetseg's executor, with prepared answers in place of a trainer."""

    def __init__(self, answers: Answers, note: Callable[[str], None]) -> None:
        super().__init__()
        self._answers, self._note = answers, note

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Note when a vehicle has joined a job."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            self._note("joined")

    def _served(
        self, header: Header, payload: bytes, abort_signal: Any, site: str
    ) -> tuple[bytes, bytes]:
        answer = self._answers.to(header, site)
        self._note(str(header["what"]))
        return answer


class ThinEngine(ClientRunManager):  # type: ignore[misc]
    """NVFlare's engine of a vehicle's job process, without that job's files."""

    def __init__(self, client: FederatedClient, job: str, meta: Any, handlers: list[Any]) -> None:
        self._meta = meta
        super().__init__(client.client_name, job, None, client, {}, handlers)
        self.cell = client.cell

    def create_job_processing_context_properties(self, workspace: Any, job_id: str) -> Any:
        """Return the properties that a job's processes have."""
        return {FLContextKey.JOB_META: self._meta}
