"""Certificates of a fleet: its root key signs vehicles' keys, wherever those were made.

A certificate binds a name to a key, signed by the root. Each costs one signature, whatever the
fleet's size. Keys are RSA: NVFlare's registration supports no other kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fleetseg.errors import ConfigError
from fleetseg.files import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from cryptography.x509 import Certificate

ROOT_DAYS = 3650
VEHICLE_DAYS = 360
_KEY_BITS = 2048
_CLOCKS = timedelta(minutes=5)  # how far a vehicle's clock may lag behind this machine's
_MAX_REQUEST = 1 << 16  # bytes
_STATE = Path("pki", "ws", "fleetseg", "state", "cert.json")  # where NVFlare keeps the root key


@dataclass(frozen=True)
class Authority:
    """A fleet's root key with its certificate."""

    key: RSAPrivateKey
    certificate: Certificate

    @property
    def pem(self) -> bytes:
        """The certificate in the form in which vehicles and the server have it."""
        return certificate_pem(self.certificate)

    def issue(
        self, name: str, public: RSAPublicKey, *, host: str | None = None, role: str | None = None
    ) -> Certificate:
        """Sign a name and its key; `host` is for the server, `role` for the operator."""
        from nvflare.lighter.utils import Identity, generate_cert

        now = datetime.now(UTC)
        ends = min(now + timedelta(days=VEHICLE_DAYS), self.certificate.not_valid_after_utc)
        if ends <= now:
            raise ConfigError(
                "the fleet's root certificate has expired",
                got=f"{ends:%Y-%m-%d}",
                cure="Renew it first: fleetseg fleet rotate --server",
            )
        return cast(
            "Certificate",
            generate_cert(
                subject=Identity(name, "fleet", role),
                issuer=Identity(_common_name(self.certificate.subject)),
                signing_pri_key=self.key,
                subject_pub_key=public,
                server_default_host=host,
                not_valid_before=now - _CLOCKS,
                not_valid_after=ends,
            ),
        )

    def renewed(self) -> Authority:
        """Return the same key and name with a certificate that is valid from now on.

        Each certificate verifies what the other does, so both can be in use side by side.
        """
        from nvflare.lighter.utils import Identity, generate_cert

        name = Identity(_common_name(self.certificate.subject))
        certificate = generate_cert(
            subject=name,
            issuer=name,
            signing_pri_key=self.key,
            subject_pub_key=self.key.public_key(),
            valid_days=ROOT_DAYS,
            ca=True,
            not_valid_before=datetime.now(UTC) - _CLOCKS,
        )
        return Authority(self.key, certificate)


def read_authority(fleet: Path) -> Authority:
    """Read a fleet's root key.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = fleet / _STATE
    try:
        state = json.loads(path.read_text(encoding="ascii"))
        # Its primes were tested when it was made; testing them again takes longer than a signature.
        key = load_pem_private_key(
            state["root_pri_key"].encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        certificate = x509.load_pem_x509_certificate(state["root_cert"].encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the fleet's root key cannot be read ({type(error).__name__})",
            where=path,
            cure="Restore pki/ from your backup for as long as this takes",
        ) from None
    return Authority(cast("RSAPrivateKey", key), certificate)


def write_root(fleet: Path, authority: Authority) -> None:
    """Replace the stored root certificate."""
    _change_state(fleet, lambda state: state.update(root_cert=authority.pem.decode("ascii")))


def forget_copies(fleet: Path, name: str) -> None:
    """Remove the copies of a vehicle's private key that NVFlare's provisioning kept.

    Fleets made by earlier versions have such copies; this version makes none.
    """
    if not (fleet / _STATE).is_file():  # the operator has moved the root key off the machine
        return
    for path in (fleet / "pki").glob(f"ws/fleetseg/prod_*/{name}/startup/client.key"):
        path.unlink()
    state = json.loads((fleet / _STATE).read_text(encoding="ascii"))
    if isinstance(state.get(name), dict) and "pri_key" in state[name]:
        _change_state(fleet, lambda state: state[name].pop("pri_key"))


def _change_state(fleet: Path, change: Any) -> None:
    """Change NVFlare's stored keys of a fleet."""
    path = fleet / _STATE
    state = json.loads(path.read_text(encoding="ascii"))
    change(state)
    write_atomic(path, json.dumps(state), mode=0o600)


def new_key() -> RSAPrivateKey:
    """Make a private key."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def certificate_pem(certificate: Certificate) -> bytes:
    """Encode a certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: RSAPrivateKey) -> bytes:
    """Encode a private key as PEM, in the form that NVFlare writes."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def read_key(path: Path) -> RSAPrivateKey:
    """Read a private key.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        what = f"the private key cannot be read ({type(error).__name__})"
        raise ConfigError(what, where=path) from None
    return cast("RSAPrivateKey", key)


def make_request(name: str, key: RSAPrivateKey) -> bytes:
    """Make a signing request: a name and a key, signed with that key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def read_request(path: Path) -> tuple[str, RSAPublicKey]:
    """Read a signing request: the name and the key that it asks a certificate for.

    Nothing else in it is used: the fleet determines the rest of the certificate.

    Raises:
        ConfigError: it is not a signing request, is not signed with its own key, or has a key of
            another kind.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa

    cure = "Make it on the vehicle with: fleetseg fleet request NAME"
    try:
        with open(path, "rb") as file:
            request = x509.load_pem_x509_csr(file.read(_MAX_REQUEST))
        name, public = _common_name(request.subject), request.public_key()
        signed = request.is_signature_valid
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = f"not a signing request ({type(error).__name__})"
        raise ConfigError(why, where=path, cure=cure) from None
    if not signed:
        raise ConfigError("not signed with the key that it names", where=path, cure=cure)
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < _KEY_BITS:
        raise ConfigError(
            "a key that NVFlare cannot use",
            where=path,
            got=type(public).__name__,
            expected=f"RSA with {_KEY_BITS} bits or more",
            cure=cure,
        )
    return name, public


def _common_name(subject: Any) -> str:
    from cryptography.x509.oid import NameOID

    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise ValueError("not one name")
    return str(names[0].value)
