"""kill -9 of every process of the server's side: the run goes on, and to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fleet.nvflare import harness as h

import fleetseg
from fleetseg.fleet.message_log import read_message_log

ROUNDS = 6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def in_process(described: fleetseg.Experiment, out: Path) -> fleetseg.Run:
    engine = described.engine.model_copy(update={"kind": "inprocess"})
    return fleetseg.run(described.model_copy(update={"engine": engine}), out=out)


def test_any_process_of_the_engine_may_die_and_the_model_is_the_same(
    cache: Path, tmp_path: Path
) -> None:
    """One TOML in process and over the network, where everything is killed once.

    The run goes on with another number of sites, so that others serve some of the vehicles.
    """
    # Vehicles keep state of three kinds between rounds: moments, what top-k left out, and the
    # broadcast that the next one builds on.
    codecs = {
        "uplink": "topk(10%)+int8",
        "downlink": "topk(20%)+int8",
        "downlink_start": "int8(channel)",
    }
    described = h.experiment(cache, ROUNDS, seconds=0.2, **codecs)
    wanted = in_process(described, tmp_path / "reference")
    run, toml = tmp_path / "run", h.write(described, tmp_path / "experiment.toml")
    server = run / "fleet" / "server"
    with h.nothing_left(run):
        first = h.fleetseg("run", toml, "--out", run, "--json", log=tmp_path / "first.log")
        for after, what, where in (
            (1, h.SERVER_JOB, server),
            (2, h.CLIENT_JOB, run / "fleet" / "kits" / "site-1"),
            (3, h.SERVER, server),
        ):
            h.until(lambda after=after: h.done(run) >= after, f"round {after}: {first.text}")
            h.kill(what, where)
            with h.timed(f"{what.rpartition('.')[2]} killed, to the next committed round"):
                now = h.done(run)
                h.until(lambda now=now: h.done(run) > now, f"a round after: {first.text}")
        h.until(lambda: h.done(run) >= 4, f"round 4: {first.text}")
        first.kill()  # the process that aggregates, as a reboot would
        h.until(lambda: not h.tree(run), "everything ends with it", 30)
        more = ["--engine", "fleet", "--workers", "3"]
        again = h.fleetseg(
            "run", "--resume", "--out", run, "--json", *more, log=tmp_path / "again.log"
        )
        with h.timed("the aggregator killed, to the end after --resume"):
            assert again.wait(2 * h.LIMIT_S) == 0, again.text  # new kits are made, too
    end = h.rounds_of(run)[-1]
    assert end["model_sha256"] == wanted.model_sha256
    # What the server scores depends on its number of threads; vehicles have theirs from the TOML.
    assert end["scores"]["by_client"] == wanted.scores.to_dict()["by_client"]
    lines = h.committed(run)
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    assert [line["failures"] for line in lines] == [[]] * ROUNDS
    assert_nothing_left_unseen(run)


def assert_nothing_left_unseen(run: Path) -> None:
    """What the server received is what the vehicles' lists say they sent, of every start."""
    sent = {
        line["sha256"]: line
        for path in run.glob("fleet*/kits/*/fleetseg/logs/egress.jsonl")
        for line in read_message_log(path)
    }
    received = read_message_log(run / "logs" / "ingress.jsonl")
    assert received
    for line in received:
        assert line["sha256"] in sent
        assert line["bytes"] == sent[line["sha256"]]["bytes"]
