"""NVFlare's job for a segment: two class names, the sites by name, and no code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.sites import CONTROLLER, EXECUTOR

_FETCH_S = 0.1  # between two questions of a vehicle for tasks


def write_job(folder: Path, sites: Sequence[str]) -> Path:
    """Write the job of a segment of these sites; returns the folder that is submitted."""
    config = folder / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    patience = {
        "get_task_timeout": 60.0,
        "submit_task_result_timeout": 600.0,
        "task_check_interval": 1.0,
        "task_check_timeout": 10.0,
        "job_heartbeat_interval": 10,
        "dead_client_grace_period": 30,
        "dead_client_check_lead_time": 10,
    }
    server = {
        "format_version": 2,
        "server": {"task_request_interval": _FETCH_S},
        "task_request_interval": _FETCH_S,
        **patience,
        "workflows": [{"id": "fleet", "path": CONTROLLER, "args": {}}],
        "components": [],
    }
    client = {
        "format_version": 2,
        **patience,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {}}}],
        "components": [],
    }
    meta = {
        "name": "segment",
        "resource_spec": {},
        "min_clients": 1,
        "deploy_map": {"app": ["server", *sites]},
    }
    for path, fields in (
        (folder / "meta.json", meta),
        (config / "config_fed_server.json", server),
        (config / "config_fed_client.json", client),
    ):
        write_atomic(path, json.dumps(fields, indent=1) + "\n")
    return folder
