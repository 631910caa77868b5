"""The life cycle of a fleet's keys: made on the vehicle, handed over, replaced before expiry.

A replaced certificate stays valid until it expires, so old and new ones can be in use side by side
while vehicles change over one by one. The server admits vehicles by name: only revocation locks a
vehicle out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleetseg.errors import ConfigError, EngineError
from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.certificates import (
    certificate_pem,
    forget_copies,
    key_pem,
    make_request,
    new_key,
    read_authority,
    read_key,
    read_request,
    write_root,
)
from fleetseg.fleet.nvflare.kit_files import write_identity
from fleetseg.fleet.nvflare.provision import (
    OPERATOR,
    Fleet,
    changing,
    check_names,
    new_kit,
    read_fleet,
    require_vehicle,
)
from fleetseg.locks import try_lock


@dataclass(frozen=True)
class Member:
    """A vehicle as recorded in the operator's folder."""

    name: str
    revoked: bool
    ends: datetime | None  # expiry of its newest certificate; None if its kit is not here any more
    key_here: bool  # whether the fleet's folder has a copy of its private key


def members(fleet: Fleet) -> list[Member]:
    """List the vehicles of a fleet."""
    listed = []
    for name in fleet.vehicles:
        startup = fleet.kit(name) / "startup"
        ends = certificate_end(startup / "client.crt")
        key_here = (startup / "client.key").exists()
        listed.append(Member(name, name in fleet.revoked, ends, key_here))
    return listed


def certificate_end(path: Path) -> datetime | None:
    """Return when a certificate expires; None if there is no readable one."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None


def request_certificate(kit: Path, vehicle: str) -> Path:
    """On a vehicle: make its private key in a new kit; returns the signing request's file.

    Raises:
        ConfigError: there already is a key, or the name is not usable.
    """
    check_names([vehicle])
    startup, request = kit / "startup", kit / f"{vehicle}.csr"
    if (startup / "client.key").exists():
        raise ConfigError(
            "there already is a private key",
            where=startup / "client.key",
            cure="Name another folder with --kit; the kit in use works until you replace it",
        )
    startup.mkdir(parents=True, exist_ok=True)
    startup.chmod(0o700)
    key = new_key()
    # The request first: a key without a request would block the next try.
    write_atomic(request, make_request(vehicle, key))
    write_atomic(startup / "client.key", key_pem(key), mode=0o600)
    return request


def hand_over(fleet: Fleet, vehicle: str) -> None:
    """Remove a vehicle's private key from the fleet's folder, once the vehicle has its kit.

    Raises:
        EngineError: the vehicle is running from this folder.
    """
    with changing(fleet.folder):
        fleet = read_fleet(fleet.folder)
        require_vehicle(fleet, vehicle)
        with _unused(fleet.kit(vehicle)):
            (fleet.kit(vehicle) / "startup" / "client.key").unlink(missing_ok=True)
            forget_copies(fleet.folder, vehicle)


def rotate_vehicle(fleet: Fleet, vehicle: str, request: Path | None = None) -> None:
    """Write a kit with a new certificate; the old one is accepted until it expires.

    With a signing request from the vehicle, the kit has no private key.

    Raises:
        ConfigError: the vehicle is revoked, or the request is from another vehicle.
        EngineError: the vehicle is running from the folder that would be changed.
    """
    name, public = (vehicle, None) if request is None else read_request(request)
    if name != vehicle:
        raise ConfigError(
            "a request from another vehicle", where=request, got=name, expected=vehicle
        )
    with changing(fleet.folder):
        fleet = read_fleet(fleet.folder)
        require_vehicle(fleet, vehicle)
        if vehicle in fleet.revoked:
            raise ConfigError(
                f"'{vehicle}' is revoked",
                where=fleet.folder,
                cure=f"To readmit it: fleetseg fleet unrevoke {vehicle}",
            )
        kit = fleet.kit(vehicle)
        if not (kit / "startup" / "fed_client.json").exists():
            new_kit(fleet, vehicle, public)
            return
        with _unused(kit):
            write_identity(kit, vehicle, read_authority(fleet.folder), public)
            forget_copies(fleet.folder, vehicle)


def rotate_server(fleet: Fleet) -> None:
    """Renew the certificates of the root, the server and the operator.

    The root's and the server's keys and names stay, so vehicles need no change: each side accepts
    the other's old and new certificates, and the tokens that running vehicles have from the server
    stay valid. (NVFlare refuses other tokens without telling the vehicle.)

    Raises:
        ConfigError: the server's key cannot be read.
        EngineError: the server is running; each of its processes reads these files as it starts.
    """
    busy = "the fleet's server is running"
    with changing(fleet.folder), _locked(fleet.folder / "server.lock", busy):
        authority = read_authority(fleet.folder).renewed()
        server, operator = fleet.server / "startup", fleet.operator / "startup"
        own = authority.issue(
            fleet.host, read_key(server / "server.key").public_key(), host=fleet.host
        )
        key = new_key()
        operators = authority.issue(OPERATOR, key.public_key(), role="lead")
        write_root(fleet.folder, authority)
        write_atomic(server / "server.crt", certificate_pem(own))
        write_atomic(operator / "client.key", key_pem(key), mode=0o600)
        write_atomic(operator / "client.crt", certificate_pem(operators))
        for startup in (server, operator):
            write_atomic(startup / "rootCA.pem", authority.pem)


@contextmanager
def _unused(kit: Path) -> Iterator[None]:
    if (kit / "fleetseg").is_dir():
        with _locked(kit / "fleetseg" / "lock", "a vehicle is running from this folder"):
            yield
    else:
        yield


@contextmanager
def _locked(path: Path, busy: str) -> Iterator[None]:
    with open(path, "a", encoding="utf-8") as lock:
        try:
            try_lock(lock)
        except BlockingIOError:
            raise EngineError(busy, where=path.parent, cure="Stop it first") from None
        with contextlib.closing(lock):
            yield
