"""A vehicle's kit: checks before the start, and the plan of what its supervisor keeps running."""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetseg.errors import ConfigError, EngineError
from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.kit_files import write_kit_settings
from fleetseg.fleet.nvflare.names import OWN_VARIABLE, TRAINER_VARIABLE
from fleetseg.fleet.nvflare.network import client_command
from fleetseg.fleet.progress import PAGE_NAME
from fleetseg.fleet.sockets import private_directory
from fleetseg.fleet.watchdog import Watchdog

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_KIT_IN_USE = (
    "the server refuses this kit: it is in use at another place "
    "(one kit is one process; make another with: fleetseg fleet add NAME)"
)
_PART_FAILED = (
    "this vehicle's part of a job has failed, which ends the job for all vehicles; after three in "
    "a row the server leaves this one out for a time. The engine.log next to this log and those in "
    "the job folders say why: usually a different or broken installation (fleetseg doctor)"
)
_FAILURE_CODES = (101, 102, 103, 104)  # NVFlare's, for a process that ended without being asked to
_LOG_MESSAGES = {
    **{f"child worker process finished with RC {code}": _PART_FAILED for code in _FAILURE_CODES},
    "is disabled": "this vehicle has been revoked by the fleet's operator; the server refuses it",
    "Failed to send heartbeat": "the server does not accept this vehicle's heartbeats: it is down, "
    "or it has revoked this vehicle",
    "register_client unauthenticated": _KIT_IN_USE,
    "in use at another place": _KIT_IN_USE,
    "Maximum number of clients reached": "the server accepts no more vehicles",
    "Successfully registered client": "connected to the server",
    "CERTIFICATE_VERIFY_FAILED": "the certificates do not match: this kit belongs to another "
    "fleet, or a clock is wrong",
    "is not in allow_list": "this vehicle's list of allowed classes (local/resources.json) is from "
    "another version of fleetseg: restart `fleetseg client`, which rewrites it",
    "No space left on device": "the disk of this vehicle is full: free some space",
}


@dataclass(frozen=True)
class Kit:
    """A start-up kit: its vehicle's name, and where its server is."""

    folder: Path
    name: str
    host: str
    port: int
    identity: str  # the name in the server's certificate

    @property
    def own(self) -> Path:
        """The folder where fleetseg keeps this vehicle's own files."""
        return self.folder / "fleetseg"


def read_kit(folder: Path) -> Kit:
    """Read a start-up kit.

    Raises:
        ConfigError: the folder is not a start-up kit.
    """
    folder = folder.resolve()
    path = folder / "startup" / "fed_client.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        server = fields["servers"][0]
        host, _, port = server["service"]["target"].rpartition(":")
        return Kit(folder, fields["client"]["fqsn"], host, int(port), server["identity"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"not a start-up kit ({type(error).__name__}: {error})",
            where=folder,
            cure="Use a folder kits/NAME that `fleetseg fleet init` made",
        ) from None


def check_certificate(kit: Kit) -> datetime:
    """Return when the kit's certificate expires.

    Raises:
        ConfigError: the kit has no private key, or one that does not match the certificate.
        EngineError: the certificate is not valid now, by this machine's clock.
    """
    from cryptography import x509

    path = kit.folder / "startup" / "client.crt"
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    _require_key(kit.folder / "startup" / "client.key", certificate)
    now, begins, ends = (
        datetime.now(UTC),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
    if not begins <= now <= ends:
        raise EngineError(
            "this kit's certificate is not valid now",
            where=path,
            got=f"{now:%Y-%m-%d %H:%M} UTC by this machine's clock",
            expected=f"{begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M}",
            cure="Set the clock (NTP), or have the operator make new kits",
        )
    return ends


def _require_key(path: Path, certificate: Certificate) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cure = "Copy the signed kit into the folder where `fleetseg fleet request` made the key"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise ConfigError("this kit has no private key", where=path, cure=cure) from None
    except (OSError, ValueError, TypeError) as error:
        what = f"this kit's private key cannot be read ({type(error).__name__})"
        raise ConfigError(what, where=path, cure=cure) from None
    if key.public_key() != certificate.public_key():
        raise ConfigError(
            "this kit's certificate is for another private key", where=path, cure=cure
        )


def shake_hands(kit: Kit, timeout_s: float = 5.0) -> bool:
    """Try a TLS handshake with the server; returns False if nothing listens there yet.

    Raises:
        EngineError: one side does not trust the other's certificate; says how to fix it.
    """
    startup = kit.folder / "startup"
    context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
    context.load_cert_chain(startup / "client.crt", startup / "client.key")
    context.set_alpn_protocols(["h2"])
    where = f"{kit.host}:{kit.port}"
    try:
        with (
            socket.create_connection((kit.host, kit.port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=kit.identity) as secured,
        ):
            secured.settimeout(timeout_s)
            secured.recv(9)  # HTTP/2 settings; a refusal of our certificate comes here
    except ssl.SSLCertVerificationError as error:
        raise EngineError(
            f"the server's certificate is not trusted ({error.verify_message})",
            where=where,
            cure="This kit belongs to another fleet, or this machine's clock is wrong",
        ) from None
    except ssl.SSLError as error:
        raise EngineError(
            f"the server does not trust this kit's certificate ({error.reason})",
            where=where,
            cure="Use a kit of this server's fleet: fleetseg fleet add NAME",
        ) from None
    except OSError:
        return False
    return True


def plan_of(kit: Kit) -> dict[str, Any]:
    """Make the supervisor's plan: the processes of a kit that it has to keep running."""
    sockets = private_directory()
    trainer_log = kit.own / "logs" / "trainer.log"
    engine_log = kit.own / "logs" / "engine.log"
    environment = {"MALLOC_ARENA_MAX": "2", "GRPC_VERBOSITY": "NONE"}
    trainer = [sys.executable, "-m", "fleetseg.fleet.vehicle.trainer", str(kit.own)]
    return {
        "folder": str(kit.own),
        "sockets": str(sockets),
        "trainer_log": str(trainer_log),
        "children": {
            "trainer": {
                "command": [*trainer, str(sockets / "trainer")],
                "log": str(trainer_log),
                "environment": environment,
                "progress": str(sockets / PAGE_NAME),
            },
            "engine": {
                "command": client_command(kit.folder, kit.name),
                "log": str(engine_log),
                "environment": {
                    **environment,
                    TRAINER_VARIABLE: str(sockets / "trainer"),
                    OWN_VARIABLE: str(kit.own),
                },
            },
        },
        "follow": {str(engine_log): _LOG_MESSAGES},
    }


def supervisor_command(kit: Kit) -> list[str]:
    """Write the supervisor's plan; returns the command that runs the supervisor."""
    kit.own.mkdir(parents=True, exist_ok=True)
    if (kit.folder / "local").is_dir():
        write_kit_settings(kit.folder)
    path = kit.own / "plan.json"
    write_atomic(path, json.dumps(plan_of(kit), indent=1) + "\n")
    return [sys.executable, "-m", "fleetseg.fleet.vehicle.supervisor", str(path)]


def wait_for_server(
    kit: Kit, notify: Callable[[str], None], patience_s: float = float("inf")
) -> None:
    """Wait until the server answers; tells the user once if it does not answer at first."""
    until_s, notified, watchdog = time.monotonic() + patience_s, False, Watchdog()
    while not shake_hands(kit):
        watchdog.alive()
        if time.monotonic() > until_s:
            raise EngineError("the server does not answer", where=f"{kit.host}:{kit.port}")
        if not notified:
            notify(f"waiting for the server at {kit.host}:{kit.port}")
            notified = True
        time.sleep(1.0 + secrets.randbelow(1000) / 1000)  # not all vehicles at once
