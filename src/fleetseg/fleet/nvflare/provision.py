"""A fleet on disk: certificates, the server's folder, one start-up kit per vehicle.

DIR/fleet.json      host, port, vehicles
    revocations.jsonl   vehicles that may no longer take part
    pki/            the root key and NVFlare's project: keep it safe, back it up
    server/         the server's own NVFlare folder
    operator/       the identity that submits runs: used by `fleetseg server`, stays here
    kits/NAME/      carry each to its vehicle; without a key if the vehicle has made its own
    status.json, sites.json   what `fleetseg fleet status` shows
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetseg.errors import ConfigError, EngineError, MissingExtra
from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.certificates import ROOT_DAYS, read_authority, read_request
from fleetseg.fleet.nvflare.kit_files import (
    make_kit,
    remove_start_scripts,
    write_json,
    write_log_settings,
    write_transport,
)
from fleetseg.fleet.nvflare.revocations import has_list, note, read_revoked
from fleetseg.fleet.nvflare.sites import permissions, server_resources, server_transport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

PROJECT = "fleetseg"
OPERATOR = "operator@fleet.local"
ORG = "fleet"
PORT = 8102
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")  # NVFlare splits names at dots
_TAKEN = ("server",)  # NVFlare's name for the server


@dataclass(frozen=True)
class Fleet:
    """The contents of `fleet.json`, and the fleet's folder."""

    folder: Path
    host: str
    port: int = PORT
    vehicles: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()

    @property
    def server(self) -> Path:
        """The server's NVFlare folder."""
        return self.folder / "server"

    @property
    def operator(self) -> Path:
        """The kit that submits runs."""
        return self.folder / "operator"

    @property
    def active(self) -> tuple[str, ...]:
        """Vehicles that may take part."""
        revoked = set(self.revoked)
        return tuple(name for name in self.vehicles if name not in revoked)

    def kit(self, vehicle: str) -> Path:
        """Return the folder of a vehicle's start-up kit."""
        return self.folder / "kits" / vehicle

    def save(self) -> None:
        """Write `fleet.json`."""
        fields = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_atomic(self.folder / "fleet.json", json.dumps(fields, indent=1) + "\n")


def read_fleet(folder: Path) -> Fleet:
    """Read a fleet's folder.

    Raises:
        ConfigError: the folder is not a fleet's.
    """
    folder = folder.resolve()
    try:
        fields = json.loads((folder / "fleet.json").read_text(encoding="utf-8"))
        vehicles, revoked = tuple(fields["vehicles"]), tuple(fields["revoked"])
        revoked = read_revoked(folder, before=revoked)
        return Fleet(folder, fields["host"], fields["port"], vehicles, revoked)
    except FileNotFoundError:
        raise ConfigError(
            "no fleet.json: not a fleet's folder",
            where=folder,
            cure="Make one with: "
            f"fleetseg fleet init {shlex.quote(str(folder))} --vehicles 4 --host SERVER",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=folder / "fleet.json") from None


def create_fleet(folder: Path, host: str, port: int, vehicles: Sequence[str]) -> Fleet:
    """Make certificates and kits for a new fleet.

    Raises:
        ConfigError: the folder already holds a fleet, or a name is not usable.
        EngineError: NVFlare could not make them.
    """
    if (folder / "fleet.json").exists():
        raise ConfigError(
            "this folder already holds a fleet", where=folder, cure="Add to it: fleetseg fleet add"
        )
    if not _HOST.fullmatch(host):
        raise ConfigError("not usable as a host", got=repr(host), expected="a-z, 0-9, . _ -")
    check_names(vehicles)
    if len(set(vehicles)) < len(vehicles) or host in vehicles:
        raise ConfigError("two vehicles (or a vehicle and the server) have the same name")
    (folder / "pki").mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    folder.chmod(0o700)
    fleet = Fleet(folder, host, port, tuple(vehicles))
    write_atomic(folder / "pki" / "project.yml", json.dumps(_project(fleet), indent=1) + "\n")
    made = _provision(folder)
    shutil.copytree(made / host, fleet.server)
    shutil.copytree(made / OPERATOR, fleet.operator)
    write_server_settings(fleet)
    remove_start_scripts(fleet.operator)
    for vehicle in vehicles:
        new_kit(fleet, vehicle)
    fleet.save()
    return fleet


def add_vehicle(fleet: Fleet, vehicle: str) -> Fleet:
    """Make a kit for one more vehicle; the others are not touched."""
    return _added(fleet, vehicle, None)


def sign_request(fleet: Fleet, path: Path) -> tuple[Fleet, str]:
    """Add a vehicle that has made its own key; its kit has no private key.

    Returns the fleet and the vehicle's name.

    Raises:
        ConfigError: it is not a signing request, or there already is a vehicle of its name.
    """
    vehicle, public = read_request(path)
    return _added(fleet, vehicle, public), vehicle


def _added(fleet: Fleet, vehicle: str, public: RSAPublicKey | None) -> Fleet:
    check_names([vehicle])
    with changing(fleet.folder):
        fleet = read_fleet(fleet.folder)  # another vehicle may have been added since
        if vehicle in fleet.vehicles or vehicle == fleet.host:
            raise ConfigError(
                f"there already is a '{vehicle}'",
                where=fleet.folder,
                cure=f"For new keys: fleetseg fleet rotate {vehicle}",
            )
        new_kit(fleet, vehicle, public)
        added = replace(fleet, vehicles=(*fleet.vehicles, vehicle))
        added.save()
    return added


def new_kit(fleet: Fleet, vehicle: str, public: RSAPublicKey | None = None) -> None:
    """Make a vehicle's kit in the fleet's folder."""
    require_nvflare()
    defaults = fleet.server / "local"
    server = f"{fleet.host}:{fleet.port}"
    make_kit(fleet.kit(vehicle), vehicle, server, defaults, read_authority(fleet.folder), public)


def revoke_vehicle(fleet: Fleet, vehicle: str) -> Fleet:
    """Mark a vehicle as revoked; a running server sees it within seconds."""
    return _decide(fleet, vehicle, revoked=True)


def unrevoke_vehicle(fleet: Fleet, vehicle: str) -> Fleet:
    """Let a revoked vehicle take part again, with its existing certificate."""
    return _decide(fleet, vehicle, revoked=False)


def _decide(fleet: Fleet, vehicle: str, *, revoked: bool) -> Fleet:
    with changing(fleet.folder):
        fleet = read_fleet(fleet.folder)
        require_vehicle(fleet, vehicle)
        if not has_list(fleet.folder):  # a fleet of an earlier version
            note(fleet.folder, fleet.revoked, revoked=True)
        note(fleet.folder, [vehicle], revoked=revoked)
        return read_fleet(fleet.folder)


def require_vehicle(fleet: Fleet, vehicle: str) -> None:
    """Raise ConfigError if a fleet has no vehicle of that name."""
    if vehicle not in fleet.vehicles:
        known = ", ".join(fleet.vehicles[:20]) + (", ..." if len(fleet.vehicles) > 20 else "")
        raise ConfigError(
            f"no vehicle '{vehicle}'", where=fleet.folder, expected=f"one of: {known}"
        )


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Lock a fleet's folder for a change: two operators at once must not lose a vehicle."""
    with open(folder / "change.lock", "w", encoding="utf-8") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_server_settings(fleet: Fleet) -> None:
    """Write the server's settings, with the folder's current paths."""
    resources = server_resources(fleet.server, len(fleet.vehicles))
    write_json(fleet.server / "local" / "resources.json", resources)
    write_json(fleet.server / "local" / "authorization.json", permissions())
    write_transport(fleet.server, server_transport())
    write_log_settings(fleet.server)
    remove_start_scripts(fleet.server)


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError if a name cannot be a vehicle's."""
    for name in names:
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise ConfigError(
                "not usable as a vehicle's name",
                got=repr(name),
                expected="up to 61 of a-z, 0-9, _ and -, no dot, and not 'server'",
            )


def _project(fleet: Fleet) -> dict[str, Any]:
    """Return NVFlare's project file, for JSON, which is valid YAML."""
    builders = "nvflare.lighter.impl"
    participants = [
        {
            "name": fleet.host,
            "type": "server",
            "org": ORG,
            "fed_learn_port": fleet.port,
            "admin_port": fleet.port,
        },
        {"name": OPERATOR, "type": "admin", "org": ORG, "role": "lead"},
    ]
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "a fleet of fleetseg",
        "participants": participants,
        "builders": [
            {
                "path": f"{builders}.workspace.WorkspaceBuilder",
                "args": {"template_file": ["master_template.yml"]},
            },
            {
                "path": f"{builders}.static_file.StaticFileBuilder",
                "args": {"config_folder": "config", "scheme": "grpc"},
            },
            {"path": f"{builders}.cert.CertBuilder", "args": {"root_valid_days": ROOT_DAYS}},
            {"path": f"{builders}.signature.SignatureBuilder"},
        ],
    }


def _provision(folder: Path) -> Path:
    """Have NVFlare make the root, the server and the operator; returns the folder with them."""
    require_nvflare()
    command = [sys.executable, "-m", "nvflare.cli", "provision", "-p", "project.yml", "-w", "ws"]
    done = subprocess.run(  # noqa: S603
        [*command, "--force"],
        cwd=folder / "pki",
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    made = sorted((folder / "pki" / "ws" / PROJECT).glob("prod_*"))
    if done.returncode != 0 or not made:
        output = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise EngineError("NVFlare could not make the kits", where=folder, got=" / ".join(output))
    return made[-1]


def require_nvflare() -> None:
    """Raise MissingExtra if NVFlare is not installed."""
    try:
        import nvflare  # noqa: F401
    except ImportError:
        raise MissingExtra("nvflare", "fleet", "a fleet over a network") from None
