"""Shared by all tests: where the real driving data is, and a skip with a reason where it is not."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.release_world import World

# The machine is shared: how long an example takes says nothing.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

DATA_ROOT = Path(
    os.environ.get("FLEETSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


CHROMIUM = Path("/usr/bin/chromium")

# Imported, they write their lines into tables for good: see the fixture `toys`.
collect_ignore_glob = ["toys/*"]

TOGETHER = {
    # Many processes that wait for each other, and a test goes on where the one before it ended. Of
    # make test the first two, of make fleet the others, in two lists of about one length.
    "tests/fleet/nvflare/test_network.py": "fleets",
    "tests/fleet/nvflare/test_crashes.py": "fleets",
    "tests/fleet/nvflare/test_methods.py": "fleets",
    "tests/fleet/nvflare/test_toys.py": "fleets",
    "tests/fleet/nvflare/test_vehicles.py": "vehicles",
    # Their tests use what each process would make again: runs to compare with, parsed files.
    "tests/methods/test_attendance.py": "attendance",
    "tests/methods/test_preset.py": "presets",
    "tests/test_published_examples.py": "published examples",
    "tests/test_toys.py": "toys",
    "tests/test_unlabelled.py": "unlabelled",
    # A few long tests each, and the files of the house.
    "tests/test_notebook.py": "notebook",
    "tests/fleet/nvflare/test_paths.py": "paths",
    "tests/runs/test_scenario_files.py": "scenario files",
    "tests/test_house.py": "house",
}
"""Files whose tests run in one process of the suite, by the name of what they form, the longest
first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort what runs together to the front, in the order above."""
    places = {path: place for place, path in enumerate(TOGETHER)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out what runs together, then all other tests singly, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class TogetherFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.split("::")[0], nodeid)

        def _pending_of(self, workload: dict[str, dict[str, bool]]) -> int:
            # It is asked after each test: with thousands of them, what is done has to be forgotten.
            for scope in [scope for scope, tests in workload.items() if all(tests.values())]:
                del workload[scope]
            return int(super()._pending_of(workload))

    config.option.loadscopereorder = False
    return TogetherFirst(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what was collected out of garbage collection, which every run asks for once in full.

    Ten thousand tests and the modules around them live to the end; to look through them took half a
    second of each run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def real_data() -> Path:
    """Folder with camvid/, idd_lite/, cityscapes_sample/ and splits/ (see CONTRIBUTING)."""
    if not (DATA_ROOT / "camvid").is_dir():
        pytest.skip(f"real driving data not found at {DATA_ROOT}; set FLEETSEG_DATA")
    return DATA_ROOT


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """Have the toys of tests/toys in their tables for as long as a module's tests run."""
    from tests.toys import all as lines

    lines.add()
    yield
    lines.remove()


@pytest.fixture
def made_up_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the weights of tests/pretrained.py in the place of the published ones."""
    from tests.pretrained import made_up_tensors

    monkeypatch.setattr("fleetseg.models.pretrained.lite0_tensors", made_up_tensors)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two models for the release gate, of which all scores are known."""
    from tests.release_world import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless browser, one for all tests."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"no browser at {CHROMIUM}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
