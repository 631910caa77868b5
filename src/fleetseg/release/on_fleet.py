"""The vehicles of a networked fleet as judges: they receive both models, and send sums.

The models travel as files; the vehicles load them and delete them once they are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleetseg._version import __version__
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.pool import Progress
from fleetseg.data.spaces import is_built_in
from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.protocol import ScoredSet
from fleetseg.federation.admission import why_left_out
from fleetseg.federation.messages import Failure
from fleetseg.federation.replies import read_failure
from fleetseg.fleet.nvflare.provision import read_fleet
from fleetseg.fleet.parcels import pack
from fleetseg.fleet.protocol import PROTOCOL, experiment_for_judges, labels_digest, write_space
from fleetseg.fleet.server.errands import Answered, Errand, Errands
from fleetseg.fleet.server.serve import connected
from fleetseg.judging.counts import Measured, Row, Rows
from fleetseg.judging.policy import Policy
from fleetseg.judging.sums import VehicleSums, read_sums, same_frames
from fleetseg.models.folder import CONFIG, WEIGHTS, find_model
from fleetseg.release.on_clients import NO_FRAMES, Judged, put_together, require_judges
from fleetseg.runs.inference import ReadyModel
from fleetseg.text import plain

_GATHER_S = 40.0  # for all vehicles to connect, before the connected ones begin


def measure_on_fleet(
    models: Sequence[ReadyModel],
    experiment: Experiment,
    policy: Policy,
    fleet: Path,
    *,
    log_folder: Path,
    wait_s: float,
    scoring: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Judged:
    """Start the server of a fleet and have its vehicles score all models on their held-out frames.

    Waits up to `wait_s` seconds for absent vehicles. A vehicle that has not answered for every
    model is named, and counts for none of them.

    Raises:
        ModelError: a model's classes differ from the experiment's.
        DataError: no vehicle has judged.
        EngineError: the fleet's server cannot be started, or no vehicle connects to it.
        ConfigError: there is no such fleet.
    """
    require_judges(models, experiment)
    known = read_fleet(fleet)
    sites = [s for s in known.active if not why_left_out(s, experiment.federation)]
    errands = {str(k): _errand(ready, experiment, policy) for k, ready in enumerate(models)}
    judging = Judging(models[0].space, policy, experiment, len(models))
    with connected(known, log_folder, min(wait_s, _GATHER_S)) as (dispatcher, network):
        asking = Errands(
            dispatcher, network, errands, sites, absent_s=wait_s, tell=tell,
            silent_s=experiment.fleet.silent_s,
        )  # fmt: skip
        for number, answered in enumerate(asking, start=1):
            judging.add(answered)
            if scoring is not None:
                scoring("models on vehicles", number, len(sites) * len(models))
    return judging.result(asking.missing)


def _errand(ready: ReadyModel, experiment: Experiment, policy: Policy) -> Errand:
    assert ready.folder is not None
    files, payload = pack(find_model(ready.folder), (CONFIG, WEIGHTS))
    own = {} if is_built_in(ready.space) else {"space": write_space(ready.space)}
    header: dict[str, Any] = {
        **own,
        "what": "judge",
        "protocol": PROTOCOL,
        "fleetseg": __version__,
        "experiment": experiment_for_judges(experiment, ready.size_hw),
        "labels": labels_digest(ready.space),
        "policy": policy.model_dump(mode="json"),
        "files": files,
    }
    return Errand(header, payload)


class Judging:
    """Collects the answers of sites, each fully validated before it counts."""

    def __init__(
        self, space: LabelSpace, policy: Policy, experiment: Experiment, num_models: int
    ) -> None:
        self._space, self._policy, self._experiment = space, policy, experiment
        self._num_models = num_models
        self._of_site: dict[str, dict[int, dict[str, VehicleSums]]] = {}
        self._silent: dict[str, str] = {}

    def add(self, answered: Answered) -> None:
        """Add a site's answer about one model, or record why it does not count."""
        site, failure = answered.site, read_failure(answered.site, answered.header)
        if failure is None:
            try:
                sums = self._read(answered)
                self._of_site.setdefault(site, {})[int(answered.errand)] = sums
                return
            except UpdateRejected as rejected:
                failure = Failure.refused(site, rejected)
        holds_none = failure.reason == "no-frames"
        words = NO_FRAMES if holds_none else f"{failure.reason}: {failure.detail}"
        self._silent[site] = plain(words, 300)

    def _read(self, answered: Answered) -> dict[str, VehicleSums]:
        """Read what a site answers, of no more vehicles and frames than the operator allows."""
        site, settings = answered.site, self._experiment.fleet
        most_images = settings.max_images_of.get(site, settings.max_images)
        classes = self._space.num_classes
        sums = read_sums(answered.header, answered.payload, self._policy, classes, most_images)
        most = settings.max_vehicles_of.get(site, settings.max_vehicles)
        if len(sums) > most:
            raise UpdateRejected(
                "vehicles",
                "one kit judges for more vehicles than it may stand for",
                got=len(sums),
                expected=f"<= {most} (fleet.max_vehicles, fleet.max_vehicles_of)",
            )
        return sums

    def result(self, missing: dict[str, str]) -> Judged:
        """Return the counts of all vehicles that judged every model on the same frames.

        Raises:
            DataError: no vehicle did.
        """
        silent = {**missing, **self._silent}
        sums: dict[str, list[Measured]] = {}
        sets: list[ScoredSet] = []
        for site, by_model in sorted(self._of_site.items()):
            if len(by_model) < self._num_models:
                silent.setdefault(site, "not every model was answered for")
                continue
            self._pair(site, [by_model[k] for k in range(self._num_models)], sums, sets, silent)
        ordered = tuple(sorted(sets, key=lambda one: one.name))
        return put_together(sums, ordered, silent, self._experiment, "a network")

    def _pair(
        self,
        site: str,
        by_model: Sequence[dict[str, VehicleSums]],
        sums: dict[str, list[Measured]],
        sets: list[ScoredSet],
        silent: dict[str, str],
    ) -> None:
        """Pair the counts of a site's vehicles across models, under names within the site's own."""
        for told in by_model[0]:
            name = told if told == site or told.startswith(f"{site}/") else f"{site}/{told}"
            if why_left_out(name, self._experiment.federation):
                continue
            each = [one[told] for one in by_model if told in one]
            first = each[0].measured
            if len(each) < len(by_model) or not all(same_frames(first, e.measured) for e in each):
                silent[name] = "the models were scored on different frames"
                continue
            sums[name] = [_named(e.measured, name) for e in each]
            sets.append(ScoredSet(name, each[0].frames, ""))


def _named(measured: Measured, name: str) -> Measured:
    def rows(told: Rows) -> Rows:
        return Rows(tuple(Row(name, row.domain) for row in told.rows), told.conf_RCC)

    worse = {way: rows(told) for way, told in measured.worse.items()}
    return Measured(rows(measured.clean), measured.bins_3B, worse)
