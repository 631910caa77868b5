"""In NVFlare's server: records which site made a job end, as only that process learns it.

NVFlare ends a job for all sites when one site's part of it fails, and its job status does not say
which. Each report of a failure is written to a file that the aggregating process reads: one line
with the job, the site (by its authenticated session), and the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.common.exit_codes import PROCESS_EXIT_REASON, ProcessExitCode
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic
from nvflare.private.defs import ERROR_MSG_PREFIX, CellMessageHeaderKeys, JobFailureMsgKey

_KILLED = 9
_REASONS = {**PROCESS_EXIT_REASON, _KILLED: "killed"}
# Reasons in the site itself, even if its job is being ended because of another site.
_OWN = (ProcessExitCode.UNSAFE_COMPONENT, ProcessExitCode.CONFIG_ERROR)


class FailureWitness(FLComponent):  # type: ignore[misc]
    """Records which site's failure ends a job, before NVFlare ends it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._server: Any = None
        self._seen: dict[str, set[str]] = {}  # job -> sites

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once the server has started, observe reports of failures and starts of jobs."""
        if event_type != EventType.SYSTEM_START:
            return
        engine = fl_ctx.get_engine()
        self._server, start = engine.server, engine.start_client_job
        self._server.cell.register_request_cb(
            channel=CellChannel.SERVER_MAIN,
            topic=CellChannelTopic.REPORT_JOB_FAILURE,
            cb=self._on_report,
        )

        def start_client_job(job: Any, client_sites: Any, fl_ctx: FLContext) -> Any:
            replies = start(job, client_sites, fl_ctx)
            for reply in replies:
                body = reply.reply.body if reply.reply else None
                if isinstance(body, str) and body.startswith(ERROR_MSG_PREFIX):
                    self._write(job.job_id, reply.client_name, "cannot start it")
            return replies

        engine.start_client_job = start_client_job

    def _on_report(self, request: Any) -> Any:
        try:
            self._note(request)
        except Exception as error:  # NVFlare's own handling must go on in any case
            self.logger.error(f"a report of a failure could not be noted ({error})")
        return self._server.process_job_failure(request)

    def _note(self, request: Any) -> None:
        job, code = (request.payload[k] for k in (JobFailureMsgKey.JOB_ID, JobFailureMsgKey.CODE))
        token = request.get_header(CellMessageHeaderKeys.TOKEN)
        client = self._server.client_manager.clients.get(token)
        engine = self._server.engine
        if client is None or code not in _REASONS:
            return
        if not engine.job_runner.is_client_outcome_pending(job, client.name):
            return
        # If the server's own part of the job has died, sites fail as a consequence.
        if job not in engine.run_processes or job in engine.exception_run_processes:
            return
        if job not in self._seen or code in _OWN:
            self._write(job, client.name, _REASONS[code])

    def _write(self, job: str, site: str, reason: str) -> None:
        sites = self._seen.setdefault(job, set())
        if site in sites:
            return
        sites.add(site)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"job": job, "site": site, "reason": reason}) + "\n")
