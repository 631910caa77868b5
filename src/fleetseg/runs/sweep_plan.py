"""From a sweep to its runs: each is an experiment that is known to be able to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.sources import open_source
from fleetseg.errors import CheckpointError, ConfigError, FleetSegError, unknown_name
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.stopping import ENDS
from fleetseg.learning.hardware import hardware_of
from fleetseg.methods import METHODS, laid_under
from fleetseg.models.build import MODELS, is_known
from fleetseg.runs.baselines import is_centralised_of
from fleetseg.runs.choices import check_choices
from fleetseg.runs.folder import can_resume, has_run, read_end, read_experiment
from fleetseg.runs.option_notes import expected_scores, require_workable
from fleetseg.runs.rules import Facts
from fleetseg.runs.sweep_file import Setting, Sweep


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep; `name` is also its folder's name."""

    name: str
    setting: str
    experiment: Experiment  # for a baseline: the federation that it is compared with
    baseline: str = ""

    def found_in(self, sweep_folder: Path) -> str:
        """Look for the run in the sweep's folder: "finished", "begun" or "" if it is not there.

        Raises:
            CheckpointError: its folder holds another run.
        """
        folder = sweep_folder / self.name
        if not has_run(folder):
            return ""
        self._require_own(folder)
        end = read_end(folder)
        if end is not None and end.get("reason") in ENDS:
            return "finished"
        return "begun" if can_resume(folder) else ""

    def _require_own(self, folder: Path) -> None:
        there = read_experiment(folder)
        if self.baseline:
            own = is_centralised_of(there, self.experiment)
        else:
            own = there.digest == self.experiment.digest
        if not own:
            raise CheckpointError(
                "this folder holds a run of another experiment",
                where=folder,
                got=f"digest {there.digest[:12]}",
                expected="the run that the sweep plans under this name",
                cure="Move the folder away, or choose another --out",
            )


def plan(sweep: Sweep) -> tuple[PlannedRun, ...]:
    """Plan the runs of a sweep: all settings with the first seed, then all with the next.

    Each run is checked as far as possible without reading images.

    Raises:
        ConfigError: lists everything that is wrong with any of them.
    """
    wrong: dict[str, list[str]] = {}
    runs = []
    for seed in sweep.seeds:
        for setting in sweep.settings:
            try:
                runs.append(_planned(sweep, setting, seed))
            except FleetSegError as error:
                wrong.setdefault(str(error), []).append(setting.name)
    for source, names in _sources(runs).items():
        try:
            open_source(source)
        except FleetSegError as error:
            wrong.setdefault(str(error), []).extend(names)
    if wrong:
        raise _cannot_run(wrong)
    return tuple(runs)


def _planned(sweep: Sweep, setting: Setting, seed: int) -> PlannedRun:
    experiment = experiment_of(sweep, setting, seed)
    if experiment.baseline.kind:
        raise ConfigError(
            f"the base is the {experiment.baseline.kind} baseline of another experiment",
            cure="Use that experiment as the base, and baseline = 'centralised' in a [[run]]",
        )
    if not is_known(experiment.model.name):
        raise unknown_name("network", experiment.model.name, MODELS)
    check_choices(experiment)
    require_workable(Facts(experiment, expected_scores(experiment)))
    hardware_of(experiment.engine)
    return PlannedRun(f"{setting.name}_seed{seed}", setting.name, experiment, setting.baseline)


def experiment_of(sweep: Sweep, setting: Setting, seed: int) -> Experiment:
    """Make the experiment of a setting; its clients train in one process.

    A setting's method takes precedence over the base, and the setting's own options over the
    method: otherwise a base that spells out an option would silently override it in every method.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    base: dict[str, Any] = dict(sweep.base)
    method = setting.options.get("method")
    if isinstance(method, str) and method in METHODS:
        base = laid_under(base, METHODS[method].fields)
    named = {"name": setting.name, "seed": seed}
    fields = {**laid_under(base, setting.options), **named}
    experiment = make_experiment(fields, where=setting.name, base=None)
    engine = experiment.engine.model_copy(update={"kind": "inprocess", "workers": 0})
    return experiment.model_copy(update={"engine": engine})


def _sources(runs: Sequence[PlannedRun]) -> dict[SourceConfig, list[str]]:
    """Return every data set of any run once, with the settings that use it."""
    asked: dict[SourceConfig, list[str]] = {}
    for run in runs:
        data = run.experiment.data
        for source in (*data.sources, *data.evaluation):
            names = asked.setdefault(source, [])
            if run.setting not in names:
                names.append(run.setting)
    return asked


def _cannot_run(wrong: dict[str, list[str]]) -> ConfigError:
    lines = []
    for told, names in wrong.items():
        distinct = list(dict.fromkeys(names))
        known = distinct[0]
        lines.append(f"{', '.join(distinct)}: {told.removeprefix(f'{known}: ')}")
    return ConfigError("\n  ".join(["this sweep cannot run, and nothing was started:", *lines]))
