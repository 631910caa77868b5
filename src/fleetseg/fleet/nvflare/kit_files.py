"""The files of a kit: a certificate, the server's address, what the vehicle allows.

    startup/  client.key, client.crt, rootCA.pem, fed_client.json
    local/    what this site allows, how it connects, and how much it logs
    fleetseg/ the vehicle's own files, made on the vehicle

The layout is that of NVFlare's own provisioning, without its scripts. A kit costs one key and one
signature.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.certificates import Authority, certificate_pem, key_pem, new_key
from fleetseg.fleet.nvflare.sites import client_resources, permissions, vehicle_transport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_PROJECT = "fleetseg"
_LOG_BYTES, _OLD_LOGS = 8 << 20, 2
_DEFAULTS = ("authorization.json.default", "log_config.json.default")
_SCRIPTS = ("start.sh", "sub_start.sh", "stop_fl.sh", "fl_admin.sh", "system_info.ipynb")


def make_kit(
    kit: Path,
    vehicle: str,
    server: str,
    defaults: Path,
    authority: Authority,
    public: RSAPublicKey | None = None,
) -> None:
    """Make a vehicle's kit, with a new key or for a key that the vehicle has made.

    `server` is "host:port"; the folder `defaults` has NVFlare's defaults for a site.
    """
    unfinished = kit.with_name(f".{vehicle}.new")
    for path in (unfinished, kit):  # left by an interrupted attempt
        shutil.rmtree(path, ignore_errors=True)
    for folder in ("startup", "local"):
        (unfinished / folder).mkdir(parents=True)
    for name in _DEFAULTS:
        shutil.copy(defaults / name, unfinished / "local" / name)
    write_json(unfinished / "startup" / "fed_client.json", _client_settings(vehicle, server))
    write_identity(unfinished, vehicle, authority, public)
    write_kit_settings(unfinished)
    unfinished.rename(kit)


def write_identity(
    kit: Path, vehicle: str, authority: Authority, public: RSAPublicKey | None = None
) -> None:
    """Write a new certificate into a kit, with a new key unless the vehicle has made its own."""
    startup = kit / "startup"
    if public is None:
        key = new_key()
        public = key.public_key()
        write_atomic(startup / "client.key", key_pem(key), mode=0o600)
    else:
        (startup / "client.key").unlink(missing_ok=True)
    write_atomic(startup / "client.crt", certificate_pem(authority.issue(vehicle, public)))
    write_atomic(startup / "rootCA.pem", authority.pem)


def _client_settings(vehicle: str, server: str) -> dict[str, Any]:
    """Return NVFlare's start-up settings of a vehicle, as its provisioning writes them."""
    host, _, _ = server.rpartition(":")
    service = {"target": server, "scheme": "grpc"}
    client = {
        "ssl_private_key": "client.key",
        "ssl_cert": "client.crt",
        "ssl_root_cert": "rootCA.pem",
        "fqsn": vehicle,
        "is_leaf": True,
        "connection_security": "mtls",
    }
    servers = [{"name": _PROJECT, "service": service, "identity": host}]
    return {"format_version": 2, "servers": servers, "client": client}


def write_kit_settings(kit: Path) -> None:
    """Write a vehicle's settings; also updates kits made by an earlier version."""
    write_json(kit / "local" / "resources.json", client_resources())
    write_json(kit / "local" / "authorization.json", permissions())
    write_transport(kit, vehicle_transport())
    write_log_settings(kit)
    remove_start_scripts(kit)


def remove_start_scripts(kit: Path) -> None:
    """Remove scripts that would start a second process with this kit."""
    for name in _SCRIPTS:
        (kit / "startup" / name).unlink(missing_ok=True)
    for path in [*kit.glob("readme.txt"), *kit.glob("startup/readme.txt")]:
        path.unlink()
    for key in kit.glob("startup/*.key"):
        key.chmod(0o600)


def write_transport(site: Path, settings: Mapping[str, Any]) -> None:
    """Write how a site connects, unless the file exists, as somebody may have edited it."""
    path = site / "local" / "comm_config.json"
    if not path.exists():
        write_json(path, settings)


def write_log_settings(site: Path) -> None:
    """Limit the size of NVFlare's logs of a site: its defaults allow four times 220 MB.

    Everything else is NVFlare's default; an existing file is kept.
    """
    if (site / "local" / "log_config.json").exists():
        return
    try:
        text = (site / "local" / "log_config.json.default").read_text(encoding="utf-8")
        settings = json.loads(text)
        handlers = settings["handlers"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # NVFlare uses what there is
    for handler in handlers:
        if "maxBytes" in handler:
            handler.update(maxBytes=_LOG_BYTES, backupCount=_OLD_LOGS)
    write_json(site / "local" / "log_config.json", settings)


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a settings file."""
    write_atomic(path, json.dumps(fields, indent=1) + "\n")
