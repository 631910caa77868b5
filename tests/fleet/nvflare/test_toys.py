"""Two toys over a network: what crosses the wire, what stays, and both after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.fleet.nvflare import harness as h

import fleetseg
from fleetseg.config import Experiment

pytestmark = pytest.mark.fleets

ROOT = Path(__file__).resolve().parents[3]
SITE = ROOT / "tests" / "toys" / "site"
ROUNDS = 4


@pytest.mark.usefixtures("toys")
def test_an_objective_and_a_sharing_policy_give_the_model_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norm layers stay with each vehicle, from the server's first values on; a variate crosses."""
    described = h.experiment(tmp_path / "cache", ROUNDS, seconds=0.2)
    training = described.training.model_copy(update={"objective": "toy control"})
    federation = described.federation.model_copy(update={"sharing": "toy norms stay"})
    data = described.data.model_copy(update={"evaluation": ()})  # there is no whole model to score
    update = {"training": training, "federation": federation, "data": data}
    described = described.model_copy(update=update)
    engine = described.engine.model_copy(update={"kind": "inprocess"})
    wanted = fleetseg.run(
        described.model_copy(update={"engine": engine}), out=tmp_path / "reference"
    )
    # The toys' lines stand in no table of the package: every process is brought them.
    before = os.environ.get("PYTHONPATH")
    path = [str(SITE), str(ROOT), *([before] if before else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    run = _killed_twice(described, tmp_path)
    lines = h.committed(run)
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    assert [line["failures"] for line in lines] == [[]] * ROUNDS
    end = h.rounds_of(run)[-1]
    assert end["model_sha256"] == wanted.model_sha256
    assert wanted.scores is not None
    assert end["scores"]["by_client"] == wanted.scores.to_dict()["by_client"]


def _killed_twice(described: Experiment, folder: Path) -> Path:
    """Run a fleet, kill a trainer that has nothing to do, and then the server."""
    run, toml = folder / "run", h.write(described, folder / "experiment.toml")
    trainer = (h.TRAINER, run / "fleet" / "kits" / "site-1")
    with h.nothing_left(run):
        first = h.fleetseg("run", toml, "--out", run, "--json", log=folder / "first.log")
        h.until(lambda: h.done(run) >= 1, f"round 1: {first.text}")
        with first.stopped():  # it sends no more, so that the trainer comes to rest
            h.until(lambda: h.at_rest(*trainer), "the trainer is at rest")
            h.kill(*trainer)
        h.until(lambda: h.done(run) >= 2, f"round 2: {first.text}")
        first.kill()
        h.until(lambda: not h.tree(run), "everything ends with it", 30)
        again = h.fleetseg("run", "--resume", "--out", run, "--json", log=folder / "again.log")
        assert again.wait() == 0, again.text
    return run
