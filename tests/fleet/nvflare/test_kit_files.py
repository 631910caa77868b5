"""A kit is as NVFlare's own provisioning would make it, and the next one costs no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fleet.nvflare.paper_fleet import one_key, paper_fleet

pytest.importorskip("nvflare")

from nvflare.fuel.f3.cellnet.connector_manager import ConnectorManager
from nvflare.fuel.f3.cellnet.fqcn import FqcnInfo
from nvflare.fuel.f3.comm_config import CommConfigurator
from nvflare.fuel.f3.drivers.grpc.utils import use_aio_grpc
from nvflare.fuel.utils.config_service import ConfigService

from fleetseg.fleet.nvflare import kit_files
from fleetseg.fleet.nvflare.kit import read_kit
from fleetseg.fleet.nvflare.provision import add_vehicle, new_kit, read_fleet, write_server_settings


def test_the_start_up_file_is_nvflare_s() -> None:
    """Against its template for vehicles, whose parts we fill in as it does."""
    import nvflare.lighter

    templates = Path(nvflare.lighter.__file__).parent / "templates" / "master_template.yml"
    text = templates.read_text()
    start = text.index("fed_client: |")
    template = text[start : text.index("\n\n", start)].partition("|")[2]
    filled = kit_files._client_settings("car-1", "server.example:8102")
    known = {key for part in (filled, filled["client"], filled["servers"][0]) for key in part}
    asked = {line.split('"')[1] for line in template.splitlines() if line.strip().startswith('"')}
    assert asked - known <= {"target", "scheme"}
    assert filled["servers"][0]["service"] == {"target": "server.example:8102", "scheme": "grpc"}


def test_the_hundred_and_fiftieth_vehicle_is_added_like_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_files, "new_key", one_key)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    fleet = paper_fleet(tmp_path, "car-0")
    written: list[Path] = []
    write = kit_files.write_atomic

    def counting(path: Path, data: bytes | str, **mode: int) -> None:
        written.append(path)
        write(path, data, **mode)

    monkeypatch.setattr(kit_files, "write_atomic", counting)
    pki = {path: path.read_bytes() for path in fleet.folder.glob("pki/**/*.*")}
    costs = []
    for k in range(1, 151):
        written.clear()
        add_vehicle(fleet, f"car-{k}")
        assert all(f".car-{k}.new" in path.parts for path in written)
        costs.append(len(written))
    assert set(costs) == {costs[0]}
    assert {path: path.read_bytes() for path in fleet.folder.glob("pki/**/*.*")} == pki
    assert len(read_fleet(fleet.folder).vehicles) == 151
    assert read_kit(fleet.kit("car-150")).name == "car-150"
    assert not list((fleet.folder / "kits").glob(".*"))


def test_an_addition_that_was_cut_off_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = paper_fleet(tmp_path, "car-0")
    monkeypatch.setattr(kit_files, "new_key", one_key)
    for half in (".car-1.new/startup", "car-1/startup"):
        (fleet.folder / "kits" / half).mkdir(parents=True)
    add_vehicle(fleet, "car-1")
    assert sorted(p.name for p in (fleet.folder / "kits").iterdir()) == ["car-1"]
    kit = fleet.kit("car-1")
    assert (kit / "startup" / "client.key").stat().st_mode & 0o077 == 0
    assert json.loads((kit / "local" / "resources.json").read_text())["class_allow_list"]
    shutil.rmtree(kit)


def test_nvflare_s_logs_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    default = tmp_path / "local" / "log_config.json.default"
    files = {"class": "logging.handlers.RotatingFileHandler", "filename": "log.txt"}
    handlers = {"console": {"stream": "x"}, "file": {**files, "maxBytes": 20 << 20}}
    default.write_text(json.dumps({"version": 1, "handlers": handlers}))
    kit_files.write_log_settings(tmp_path)
    told = json.loads((tmp_path / "local" / "log_config.json").read_text())
    assert told["handlers"]["console"] == {"stream": "x"}
    assert told["handlers"]["file"] == {**files, "maxBytes": 8 << 20, "backupCount": 2}
    default.write_text("{}")
    (tmp_path / "local" / "log_config.json").unlink()
    kit_files.write_log_settings(tmp_path)
    assert not (tmp_path / "local" / "log_config.json").exists()


@pytest.fixture
def as_nvflare_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Path], ConnectorManager]]:
    """What becomes of a site's `comm_config.json` in a process of NVFlare."""

    def read(site: Path) -> ConnectorManager:
        settings = json.loads((site / "local" / "comm_config.json").read_text())
        monkeypatch.setattr(CommConfigurator, "_config_loaded", True)
        monkeypatch.setattr(CommConfigurator, "_configuration", settings)
        monkeypatch.setattr(ConfigService, "_var_values", {})
        return ConnectorManager(None, True, CommConfigurator())

    return read


def test_a_server_takes_hundreds_and_a_vehicle_is_one_connection(
    tmp_path: Path, as_nvflare_reads: Callable[[Path], ConnectorManager]
) -> None:
    fleet = paper_fleet(tmp_path, "car-1")
    write_server_settings(fleet)
    server = as_nvflare_reads(fleet.server)
    assert use_aio_grpc() is True
    assert (server.int_scheme, server.int_resources["connection_security"]) == ("atcp", "clear")
    new_kit(fleet, "car-1")
    vehicle = as_nvflare_reads(fleet.kit("car-1"))
    assert (
        use_aio_grpc() is None
    )  # NVFlare's default: its asynchronous client is not to be relied on
    assert vehicle.bb_conn_gen == 1
    assert not vehicle.should_connect_to_server(FqcnInfo("car-1.job"))
    assert vehicle.should_connect_to_server(FqcnInfo("car-1"))


def test_how_a_site_connects_is_the_operator_s_to_change(tmp_path: Path) -> None:
    """And an older kit or server, which has no such file, gets it at its next start."""
    fleet = paper_fleet(tmp_path, "car-1")
    new_kit(fleet, "car-1")
    write_server_settings(fleet)
    for site in (fleet.kit("car-1"), fleet.server):
        path = site / "local" / "comm_config.json"
        written = path.read_text()
        path.write_text('{"use_aio_grpc": false}')
        kit_files.write_kit_settings(site)
        write_server_settings(fleet)
        assert path.read_text() == '{"use_aio_grpc": false}'
        path.unlink()
    kit_files.write_kit_settings(fleet.kit("car-1"))
    assert (fleet.kit("car-1") / "local" / "comm_config.json").exists()
    write_server_settings(fleet)
    assert (fleet.server / "local" / "comm_config.json").read_text() == written


def test_the_server_s_patience_follows_from_how_many_there_are(tmp_path: Path) -> None:
    fleet = paper_fleet(tmp_path, *(f"car-{k}" for k in range(250)))
    write_server_settings(fleet)
    settings = json.loads((fleet.server / "local" / "resources.json").read_text())
    assert settings["servers"][0]["admin_timeout"] == 50.0
