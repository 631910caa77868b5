"""What each site allows and where it stores files: NVFlare's `resources.json` and permissions.

Stricter than NVFlare's defaults: a site runs two classes of ours and nothing else, accepts no code
with a job, and sends no logs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetseg.fleet.nvflare.pace import admin_timeout_s

# As dotted names, because the processes that read these files import the classes themselves.
_HERE = "fleetseg.fleet.nvflare"
CONTROLLER = f"{_HERE}.controller.FleetController"
EXECUTOR = f"{_HERE}.executor.TrainerExecutor"
_COMMON = "nvflare.app_common"
_HEARTBEAT_TIMEOUT_S = 60
WITNESSED = "witnessed.jsonl"  # file in the server's folder: sites that made jobs end
MAX_VEHICLES = 10_000


def permissions() -> dict[str, Any]:
    """Return permissions: the operator submits and stops runs; nobody sends code or has a shell."""
    nothing = {"byoc": "none", "shell_commands": "none", "clone_job": "none"}
    return {
        "format_version": "1.0",
        "permissions": {
            "project_admin": {"view": "any", "submit_job": "none", **nothing},
            "org_admin": {"view": "any", "submit_job": "none", **nothing},
            "lead": {
                "submit_job": "any",
                "manage_job": "any",
                "download_job": "none",
                "view": "any",
                "operate": "any",
                "server-predeployed-flwr": "none",
                **nothing,
            },
            "member": {"view": "any", "submit_job": "none", **nothing},
        },
    }


def _allowed() -> dict[str, Any]:
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [CONTROLLER, EXECUTOR],
    }


def client_resources() -> dict[str, Any]:
    """Return the settings of a vehicle."""
    return {
        **_allowed(),
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            {
                "id": "resource_manager",
                "path": f"{_COMMON}.resource_managers.gpu_resource_manager.GPUResourceManager",
                "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300},
            },
            {
                "id": "resource_consumer",
                "path": f"{_COMMON}.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
                "args": {},
            },
            {
                "id": "process_launcher",
                "path": f"{_HERE}.launchers.VehicleLauncher",
                "args": {},
            },
            {"id": "kit_place", "path": f"{_HERE}.guard.LocationReporter", "args": {}},
        ],
    }


# Unacknowledged bytes per receiver: with NVFlare's 16 MiB, the models for a cohort of 32 filled the
# link between the server's own processes, and nothing else got through.
_WINDOW = {"streaming_window_size": 4 << 20, "streaming_ack_interval": 1 << 20}


def server_transport() -> dict[str, Any]:
    """Return how the server's processes accept connections (`comm_config.json`).

    NVFlare's default uses a thread for each stream of a vehicle, at most 100, and beyond 1,024 open
    files the link between its own two processes breaks (`select`).
    """
    inside = {"host": "localhost", "connection_security": "clear"}
    return {
        "use_aio_grpc": True,
        "backbone_conn_gen": 1,
        "internal": {"scheme": "atcp", "resources": inside},
        **_WINDOW,
    }


def vehicle_transport() -> dict[str, Any]:
    """Return how a vehicle connects: with one connection, which its part of a job shares."""
    return {"backbone_conn_gen": 1, **_WINDOW}


def server_resources(folder: Path, num_vehicles: int = 0) -> dict[str, Any]:
    """Return the server's settings for `num_vehicles`; its storage is inside `folder`."""
    filesystem = f"{_COMMON}.storages.filesystem_storage.FilesystemStorage"
    return {
        **_allowed(),
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": MAX_VEHICLES,
                "heart_beat_timeout": _HEARTBEAT_TIMEOUT_S,
                "download_job_url": "http://localhost/",
                "admin_timeout": admin_timeout_s(num_vehicles),
            }
        ],
        "snapshot_persistor": {
            "path": f"{_COMMON}.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {
                "uri_root": "/",
                "storage": {
                    "path": filesystem,
                    "args": {"root_dir": str(folder / "snapshots"), "uri_root": "/"},
                },
            },
        },
        "components": _server_components(folder),
    }


def _server_components(folder: Path) -> list[dict[str, Any]]:
    filesystem = f"{_COMMON}.storages.filesystem_storage.FilesystemStorage"
    launcher = f"{_HERE}.launchers.ServerLauncher"
    return [
        {
            "id": "job_scheduler",
            "path": f"{_COMMON}.job_schedulers.job_scheduler.DefaultJobScheduler",
            "args": {"max_jobs": 4, "min_schedule_interval": 0.5, "max_schedule_interval": 2.0},
        },
        {
            "id": "job_manager",
            "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
            "args": {"uri_root": str(folder / "jobs"), "job_store_id": "job_store"},
        },
        {"id": "job_store", "path": filesystem},
        {"id": "process_launcher", "path": launcher, "args": {}},
        {"id": "kit_guard", "path": f"{_HERE}.guard.DuplicateKitGuard", "args": {}},
        {
            "id": "failure_witness",
            "path": f"{_HERE}.witness.FailureWitness",
            "args": {"path": str(folder / WITNESSED)},
        },
    ]
