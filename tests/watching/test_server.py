"""The live page is served to this machine's browsers only, and follows a real run in one."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from tests.records import record
from tests.run_folders import run_folder

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import to_toml
from fleetseg.fleet.nvflare.provision import Fleet
from fleetseg.watching.page import LivePage
from fleetseg.watching.server import serving_page

pytest.importorskip("jinja2")

# To strangers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = run_folder(tmp_path_factory.mktemp("served") / "one", [0.25], reason="")
    with serving_page(LivePage(folder), 0) as address:
        yield folder, int(address.rsplit(":", 1)[1].strip("/"))


def ask(
    port: int, path: str = "/", method: str = "GET", host: str = ""
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_page_comes_with_a_policy_that_names_its_scripts(served: tuple[Path, int]) -> None:
    status, headers, body = ask(served[1])
    assert status == 200
    policy = headers["Content-Security-Policy"]
    (nonce,) = re.findall(r"script-src 'nonce-([\w-]{20,})';", policy)
    assert body.count(f'<script nonce="{nonce}">') == 2
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert nonce not in ask(served[1])[2]  # each answer has its own


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "evil.example:{port}", "127.0.0.1:1"]
)
@pytest.mark.parametrize("path", ["/", "/events"])
def test_other_names_of_this_host_are_refused(
    served: tuple[Path, int], path: str, host: str
) -> None:
    port = served[1]
    assert ask(port, path, host=host.format(port=port))[0] == 421


def test_localhost_is_a_name_of_the_loopback(served: tuple[Path, int]) -> None:
    assert ask(served[1], host=f"localhost:{served[1]}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/rounds.jsonl", "/../experiment.toml", "/%2e%2e/experiment.toml", "//etc/passwd", "/?"],
)
def test_no_other_path_is_served(served: tuple[Path, int], path: str) -> None:
    status, _, body = ask(served[1], path)
    assert (status, body) == (404, "nothing here: the page is /\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_done_but_looked_at(served: tuple[Path, int], method: str) -> None:
    assert ask(served[1], method=method)[0] == 501


def test_a_port_that_is_taken_is_told(served: tuple[Path, int]) -> None:
    with (
        pytest.raises(ConfigError, match=f"port {served[1]} cannot be opened"),
        serving_page(LivePage(served[0]), served[1]),
    ):
        pass


def test_events_say_that_a_round_is_there(served: tuple[Path, int]) -> None:
    folder, port = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/events")
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream"

    def state() -> dict[str, Any]:
        assert stream.readline() == b"event: state\n"
        fields = json.loads(stream.readline().removeprefix(b"data: "))
        assert stream.readline() == b"\n"
        return dict(fields)

    first = state()
    assert first["word"] == "Stopped"  # nobody is at work on it
    with open(folder / "rounds.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(record(2).to_dict()) + "\n")
    second = state()
    assert second["version"] != first["version"]
    assert "round 2 of" in second["sentence"]
    connection.close()


# In a browser, with a run at work in another process

TRAINING = """
import sys, time
from pathlib import Path
import fleetseg
from fleetseg.federation.rounds import Watcher

folder = Path(sys.argv[1])

def wait(record):
    (folder / f"closed-{record.round}").touch()
    while not (folder / f"go-{record.round}").exists():
        time.sleep(0.02)

fleetseg.run(folder / "one.toml", out=folder / "run", watcher=Watcher(round_closed=wait))
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of four rounds, which goes on after round N once `go-N` is there."""
    folder = tmp_path_factory.mktemp("training")
    drive = {"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 2}
    experiment = tiny_experiment(
        folder / "cache",
        data={"sources": [drive], "evaluation": [{**drive, "split": "val"}]},
        evaluation={"pictures": 1},
        federation={"rounds": 4},
    )
    (folder / "go-1").touch()
    (folder / "one.toml").write_text(to_toml(experiment))
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(folder)])
    try:
        for_file(folder / "closed-2", process)
        yield folder
    finally:
        process.kill()
        process.wait()


def for_file(path: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process is None or process.poll() is None, "the run has ended"
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_round_appears_without_a_reload_and_the_end_is_told(training: Path, browser: Any) -> None:
    fleet = training / "fleet"
    fleet.mkdir()
    Fleet(fleet, "localhost", vehicles=("car-1",)).save()
    with serving_page(LivePage(training / "run", fleet), 0) as address:
        # Without motion: where something lies is then known at once.
        page = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        page.set_default_timeout(60_000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        live = page.locator("#live")
        live.locator("span", has_text="Round 2 of 4 is done, mIoU").wait_for()
        page.evaluate("window.sameDocument = true")
        page.locator("#live-vehicles th", has_text="car-1").wait_for()

        # A person opens a fold, scrolls to it and goes on by the keyboard.
        fold = page.locator("#curves details", has_text="All rounds as a table")
        fold.locator("summary").click()
        page.locator("#configuration").scroll_into_view_if_needed()
        page.locator("#configuration summary").first.focus()
        top = page.evaluate("document.querySelector('#configuration').getBoundingClientRect().top")

        (training / "go-2").touch()
        live.locator("span", has_text="Round 3 of 4 is done, mIoU").wait_for()
        rows = fold.locator("tbody tr")
        rows.nth(2).wait_for()  # the fold is still open, and has the new round
        assert rows.count() == 3
        assert page.locator("#round").get_attribute("max") == "3"
        assert page.locator("#round-out").inner_text().startswith("Round 3:")
        focused = page.evaluate("document.activeElement.closest('section')?.id")
        assert (focused, page.evaluate("document.activeElement.tagName")) == (
            "configuration",
            "SUMMARY",
        )
        now = page.evaluate("document.querySelector('#configuration').getBoundingClientRect().top")
        assert abs(now - top) < 2

        # The page's own script works on what was swapped in.
        page.locator("#round").focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#round-out").inner_text().startswith("Round 2:")

        (training / "go-3").touch()
        (training / "go-4").touch()
        live.locator("b", has_text="Over").wait_for()
        assert "all rounds are done: round 4 of 4" in live.inner_text()
        rows.nth(3).wait_for()
        # Who looks at an earlier round goes on to look at it.
        assert page.locator("#round-out").inner_text().startswith("Round 2:")
        assert page.evaluate("window.sameDocument")
        assert complaints == []
    live.locator("b", has_text="Not connected").wait_for()  # and what was there stays
    assert rows.count() == 4
    page.close()
