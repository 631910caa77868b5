"""What a fleet's root signs, and what it does not take for a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.fleet.nvflare.paper_fleet import authority, one_key, paper_fleet

pytest.importorskip("nvflare")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from nvflare.lighter.utils import verify_cert

from fleetseg.errors import ConfigError
from fleetseg.fleet.nvflare.certificates import (
    ROOT_DAYS,
    forget_copies,
    make_request,
    read_authority,
    read_request,
)


def test_a_certificate_ends_with_its_root_at_the_latest() -> None:
    for days, expected in ((1000, 360), (30, 30)):
        issued = authority(days).issue("car-1", one_key().public_key())
        left = issued.not_valid_after_utc - datetime.now(UTC)
        assert abs(left - timedelta(days=expected)) < timedelta(minutes=1)


def test_a_vehicle_whose_clock_lags_takes_its_new_certificate() -> None:
    issued = authority().issue("car-1", one_key().public_key())
    assert issued.not_valid_before_utc <= datetime.now(UTC) - timedelta(minutes=4)


def test_nothing_is_signed_after_the_root_s_end() -> None:
    with pytest.raises(ConfigError, match=r"root certificate has expired.*rotate --server"):
        authority(10, began_days_ago=20).issue("car-1", one_key().public_key())


def test_old_and_new_root_vouch_for_the_same() -> None:
    old = authority(300)
    new = old.renewed()
    assert new.certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=ROOT_DAYS - 1)
    for signer, other in ((old, new), (new, old)):
        issued = signer.issue("car-1", one_key().public_key())
        verify_cert(issued, other.certificate.public_key())
        issued.verify_directly_issued_by(other.certificate)


def test_a_request_is_a_name_and_a_key(tmp_path: Path) -> None:
    path = tmp_path / "car-7.csr"
    path.write_bytes(make_request("car-7", one_key()))
    name, public = read_request(path)
    assert (name, public) == ("car-7", one_key().public_key())


def _csr(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _of_another_key() -> bytes:
    """A request whose signature does not fit."""
    der = x509.load_pem_x509_csr(make_request("car-7", one_key())).public_bytes(Encoding.DER)
    spoilt = der[:-8] + bytes(8)
    return x509.load_der_x509_csr(spoilt).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: b"", "not a signing request"),
        (lambda: b"x" * 100_000, "not a signing request"),
        (lambda: _csr(one_key()), "not a signing request"),
        (lambda: _csr(one_key(), "a", "b"), "not a signing request"),
        (_of_another_key, "not signed with the key that it names"),
        (lambda: _csr(ec.generate_private_key(ec.SECP256R1()), "a"), "got ECPublicKey"),
        (lambda: _csr(rsa.generate_private_key(65537, 1024), "a"), "expected RSA with 2048 bits"),
    ],
)  # fmt: skip
def test_what_is_not_signed(tmp_path: Path, data: object, why: str) -> None:
    assert callable(data)
    path = tmp_path / "car-7.csr"
    path.write_bytes(data())
    with pytest.raises(ConfigError, match=f"{why}.*fleetseg fleet request NAME"):
        read_request(path)


def test_no_root_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cert.json: the fleet's root key cannot be read.*back"):
        read_authority(tmp_path)


def test_copies_that_earlier_versions_kept_of_a_private_key_go(tmp_path: Path) -> None:
    fleet = paper_fleet(tmp_path, "car-1", "car-2")
    state = fleet.folder / "pki/ws/fleetseg/state/cert.json"
    known = json.loads(state.read_text())
    for car in ("car-1", "car-2"):
        startup = fleet.folder / "pki/ws/fleetseg/prod_03" / car / "startup"
        startup.mkdir(parents=True)
        (startup / "client.key").write_text("secret")
        known[car] = {"cert": "public", "pri_key": "secret"}
    state.write_text(json.dumps(known))
    forget_copies(fleet.folder, "car-1")
    left = [p.parts[-3] for p in fleet.folder.glob("pki/**/client.key")]
    assert left == ["car-2"]
    del known["car-1"]["pri_key"]
    assert json.loads(state.read_text()) == known
