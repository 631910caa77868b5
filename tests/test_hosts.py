"""What a machine allows, and paths as people write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetseg import hosts
from fleetseg.errors import ConfigError
from fleetseg.hosts import cpu_quota, expanded, given_path, path_from_environment


def groups(tmp_path: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    mount = tmp_path / "cgroup"
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    return tmp_path / "own", mount


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2.0),
        ("0::/host/path\n", {"cpu.max": "50000 100000"}, 0.5),  # the host's name for it
        ("4:memory:/\n2:cpu,cpuacct:/x\n0::/\n",
         {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
         4.0),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "0"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_a_container_s_share(
    tmp_path: Path, own: str, files: dict[str, str], expected: float | None
) -> None:
    assert cpu_quota(*groups(tmp_path, own, files)) == expected


def test_no_such_file_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("share", "cores"), [(None, 8), (0.2, 1), (1.5, 2), (3.0, 3), (64.0, 8)])
def test_fewer_cores_by_a_share(
    monkeypatch: pytest.MonkeyPatch, share: float | None, cores: int
) -> None:
    monkeypatch.setattr(hosts, "_listed_cores", lambda: 8)
    monkeypatch.setattr(hosts, "cpu_quota", lambda: share)
    assert hosts.allowed_cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a list of cores")
def test_fewer_cores_by_a_list() -> None:
    """As taskset, Slurm or --cpuset-cpus do: everything that counts cores sees one."""
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from fleetseg.config import Experiment\n"
        "from fleetseg.runs.concurrency import concurrency\n"
        "from fleetseg.data.store.build import _THREADS\n"
        "from fleetseg.runs.folder import environment\n"
        "from fleetseg.hosts import allowed_cores\n"
        "print(allowed_cores(), concurrency(Experiment(), 8), _THREADS,"
        "      environment('cpu','fp32')['cores'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1"] * 4


def test_home_and_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "~/data")
    assert expanded("~/x") == "/home/me/x"
    assert expanded("${PLACE}/x") == "/home/me/data/x"  # as ENV and unit files leave it
    assert expanded("/a/b c") == "/a/b c"
    assert expanded("price-5$") == "price-5$"
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ConfigError, match=r"NO_SUCH is not set.* export NO_SUCH="):
        expanded("$NO_SUCH/x")
    assert given_path("$NO_SUCH/x") == Path("$NO_SUCH/x")  # a shell has had its say
    assert given_path("~/x") == Path("/home/me/x")
    with pytest.raises(ConfigError, match="an empty path"):
        given_path("")
    assert given_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_a_home_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda text: text)
    for read in (expanded, given_path):
        with pytest.raises(ConfigError, match=r"no.*Write the path in full, or set HOME"):
            read("~/cache")


def test_a_blank_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_CACHE", " ")
    assert path_from_environment("FLEETSEG_CACHE") is None
    monkeypatch.setenv("FLEETSEG_CACHE", "$NO_SUCH_VARIABLE/x")
    with pytest.raises(ConfigError, match="FLEETSEG_CACHE: the environment variable NO_SUCH"):
        path_from_environment("FLEETSEG_CACHE")


def test_nowhere_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(ConfigError, match="Set TMPDIR"):
        hosts.temporary_folder()
