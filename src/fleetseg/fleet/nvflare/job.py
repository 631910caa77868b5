"""The NVFlare job of a segment: two class names, the names of the sites, and no code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.names import HEART_S, IDLE_BEAT_S
from fleetseg.fleet.nvflare.pace import pace_of
from fleetseg.fleet.nvflare.sites import CONTROLLER, EXECUTOR


def write_job(folder: Path, sites: Sequence[str]) -> Path:
    """Write the job of a segment with these sites; returns the folder to submit."""
    config = folder / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    pace = pace_of(len(sites))
    patience = {
        "get_task_timeout": 60.0,
        "submit_task_result_timeout": 600.0,
        "task_check_interval": 1.0,
        "task_check_timeout": 10.0,
        "job_heartbeat_interval": pace.job_beat_s,
        "dead_client_grace_period": 3 * pace.job_beat_s,
        "dead_client_check_lead_time": pace.job_beat_s,
        "max_runner_sync_timeout": pace.join_s,
    }
    server = {
        "format_version": 2,
        "server": {"task_request_interval": pace.poll_s},
        "task_request_interval": pace.poll_s,
        **patience,
        "workflows": [{"id": "fleet", "path": CONTROLLER, "args": {"idle_beat_s": pace.beat_s}}],
        "components": [],
    }
    client = {
        "format_version": 2,
        **patience,
        "runner_sync_timeout": pace.sync_s,
        "default_task_fetch_interval": pace.retry_s,
        HEART_S: pace.heart_s,
        IDLE_BEAT_S: pace.beat_s,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {}}}],
        "components": [],
    }
    deploy_map = {"app": ["server", *sites]}
    meta = {"name": "segment", "resource_spec": {}, "min_clients": 1, "deploy_map": deploy_map}
    for path, fields in (
        (folder / "meta.json", meta),
        (config / "config_fed_server.json", server),
        (config / "config_fed_client.json", client),
    ):
        write_atomic(path, json.dumps(fields, indent=1) + "\n")
    return folder
