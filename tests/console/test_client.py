"""`fleetseg client` up to the moment when it becomes a supervisor."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetseg.console.client import start_client
from fleetseg.errors import ConfigError, DataError, EngineError

pytest.importorskip("nvflare")


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A start-up kit with a certificate of its own making; no server answers to it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    startup = tmp_path / "kits" / "car-1" / "startup"
    startup.mkdir(parents=True)
    fields = {
        "servers": [{"service": {"target": "localhost:9"}, "identity": "localhost"}],
        "client": {"fqsn": "car-1"},
    }
    (startup / "fed_client.json").write_text(json.dumps(fields))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "car-1")])
    now = datetime.now(UTC)

    def certify(begins: datetime, ends: datetime) -> bytes:
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begins, ends)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (startup / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (startup / "client.crt").write_bytes(certify(now - timedelta(1), now + timedelta(30)))
    (startup / "old.crt").write_bytes(certify(now - timedelta(9), now - timedelta(2)))
    return startup.parent


def begin(kit: Path, kind: str = "synthetic", root: str = "", **changes: Any) -> None:
    words = {"split": "", "sequences": (), "split_file": None, "vehicles": (), **changes}
    start_client(kit, kind, root, **words)


def test_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a start-up kit \(FileNotFoundError.*fleet init"):
        begin(tmp_path / "none")
    (tmp_path / "startup").mkdir()
    for content in ("{", "{}", "[]", '{"servers": []}', '{"servers": [{"service": {}}]}'):
        (tmp_path / "startup" / "fed_client.json").write_text(content)
        with pytest.raises(ConfigError, match="not a start-up kit"):
            begin(tmp_path)


def test_a_certificate_that_has_run_out(kit: Path) -> None:
    (kit / "startup" / "old.crt").replace(kit / "startup" / "client.crt")
    with pytest.raises(EngineError, match=r"certificate is not valid now.*Set the clock \(NTP\)"):
        begin(kit)


def test_an_unknown_data_set(kit: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'camvit'.*Did you mean 'camvid'"):
        begin(kit, "camvit", "/data")


def test_a_data_set_without_its_folder(kit: Path) -> None:
    with pytest.raises(ConfigError, match="--root PATH is missing; expected the folder of the cam"):
        begin(kit, "camvid")
    assert not (kit / "fleetseg").exists()


def test_a_split_file_that_is_not_there(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: there is no such split file"):
        begin(kit, split_file=tmp_path / "none.json")


def test_data_that_are_not_there(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none"):
        begin(kit, "camvid", str(tmp_path / "none"))


def test_a_client_becomes_its_supervisor(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fleetseg.fleet.nvflare import kit as vehicle_module
    from fleetseg.fleet.vehicle.site_data import SiteData

    became: list[list[str]] = []
    monkeypatch.setattr(vehicle_module, "wait_for_server", lambda kit, notify: None)
    monkeypatch.setattr("os.execv", lambda path, words: became.append(words))
    begin(kit, sequences=("amber-day",), vehicles=("x", "y"))
    ((_, *words),) = became
    assert words[:2] == ["-m", "fleetseg.fleet.vehicle.supervisor"]
    plan = json.loads(Path(words[2]).read_text())
    assert set(plan["children"]) == {"trainer", "engine"}
    Path(plan["sockets"]).rmdir()
    site_data = SiteData.read(kit / "fleetseg" / "site-data.json")
    assert (site_data.site, site_data.vehicles, site_data.split_file) == ("car-1", ("x", "y"), "")
    (source,) = site_data.sources
    assert (source.kind, source.split, source.sequences) == ("synthetic", "train", ("amber-day",))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("car-1: 12 images of synthetic/train; server localhost:9; certificate")
    assert second.endswith("egress.jsonl")
