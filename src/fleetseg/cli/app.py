"""The command line: thin commands that each call one function of the package.

Modules that need torch are imported inside the commands, so that help appears at once.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fleetseg.cli import options as o
from fleetseg.cli.audit import audit_app
from fleetseg.cli.cache import cache_app
from fleetseg.cli.config import config_app
from fleetseg.cli.export import export
from fleetseg.cli.fleet import client, fleet_app, server
from fleetseg.cli.init import init
from fleetseg.cli.predict import predict
from fleetseg.cli.release import release, releases, rollback
from fleetseg.cli.report import report
from fleetseg.cli.scenario import scenario_app
from fleetseg.cli.sweeps import compare, sweep
from fleetseg.cli.tracking import Track, tracking
from fleetseg.cli.tune import tune
from fleetseg.cli.watch import watch
from fleetseg.console import print_error, reports_errors
from fleetseg.streams import finish_streams, prepare_streams
from fleetseg.text import names

app = typer.Typer(
    name="fleetseg",
    help="Federated semantic segmentation: a fleet learns, the pictures stay in the car.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(
    no_args_is_help=True, help="Check data, generate synthetic data, manage the cache."
)
data_app.add_typer(cache_app, name="cache")
app.add_typer(audit_app, name="audit")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(fleet_app, name="fleet")
app.add_typer(scenario_app, name="scenario")


def _print_version(wanted: bool) -> None:
    if wanted:
        from fleetseg._version import __version__

        typer.echo(f"fleetseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
@reports_errors
def run(
    experiment: o.OptionalExperiment = None,
    overrides: o.Overrides = None,
    out: o.RunFolder = None,
    resume: o.Resume = False,
    engine: o.Engine = None,
    workers: o.Workers = None,
    baseline: o.Baseline = None,
    only: o.Only = None,
    exclude: o.Exclude = None,
    dry_run: o.Rehearse = False,
    track: Track = None,
    as_json: o.JsonLines = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a fleet, or one of its two baselines.

    \b
    Examples:
      fleetseg run examples/tiny.toml
      fleetseg run examples/tiny.toml --dry-run
      fleetseg run examples/tiny.toml --set federation.rounds=12 --out runs/tiny
      fleetseg run --resume --out runs/tiny
      fleetseg run examples/tiny.toml --baseline centralised
      fleetseg run examples/tiny.toml --engine fleet
      fleetseg run examples/tiny.toml --exclude 'synthetic-amber-*'
      fleetseg run examples/tiny.toml --track tensorboard
      fleetseg run examples/tiny.toml --json > rounds.jsonl
    """  # noqa: D301
    from fleetseg.console import stdout_console
    from fleetseg.console.run import make_request, output_style, run_and_show

    patterns = {"only": only, "exclude": exclude}
    settings = [*(overrides or ()), *_settings(engine, workers, patterns), *tracking(track)]
    if dry_run:
        _rehearse(experiment, settings, resume=resume, baseline=baseline)
        return
    kind: Literal["centralised", "local"] | None = None if baseline is None else baseline.value
    style = output_style(stdout_console(), as_json=as_json, quiet=quiet)
    request = make_request(experiment, settings, out=out, resume=resume, baseline=kind, style=style)
    raise typer.Exit(run_and_show(request))


def _settings(
    engine: o.EngineKind | None, workers: int | None, patterns: dict[str, list[str] | None]
) -> list[str]:
    given: dict[str, Any] = {"kind": engine, "workers": workers}
    settings = [f"engine.{k}={v}" for k, v in given.items() if v is not None]
    return settings + [f"federation.{k}={json.dumps(v)}" for k, v in patterns.items() if v]


def _rehearse(
    experiment: Path | None,
    overrides: list[str],
    *,
    resume: bool,
    baseline: o.BaselineKind | None,
) -> None:
    from fleetseg.console.rehearsal import rehearse_and_show

    if experiment is None or resume or baseline is not None:
        raise typer.BadParameter("--dry-run takes an EXPERIMENT.toml, no --resume, no --baseline")
    rehearse_and_show(experiment, overrides)


@app.command()
@reports_errors
def evaluate(
    model: o.ModelOrRun,
    dataset: o.Dataset = "",
    root: o.Root = "",
    split: o.Split = "test",
    experiment: o.TestFrames = None,
    as_json: o.Json = False,
    pictures: o.Pictures = None,
    norms: o.NormsOption = None,
    overrides: o.EvaluationOverrides = None,
    cluster: o.ClusterOption = None,
    debug: o.Debug = False,
) -> None:
    """Score a model on a data set or an experiment's test frames: IoU per class and domain.

    \b
    Examples:
      fleetseg evaluate runs/tiny --dataset synthetic --split test
      fleetseg evaluate runs/camvid --dataset camvid --root data/camvid --split val
      fleetseg evaluate runs/camvid/model --dataset cityscapes --root data/cityscapes \\
        --split val --pictures looks --json
      fleetseg evaluate runs/one-country --experiment examples/two-countries.toml
      fleetseg evaluate runs/silobn --dataset synthetic --norms domain
      fleetseg evaluate runs/camvid --dataset synthetic --norms tent --set evaluation.tent.lr=1e-4
    """  # noqa: D301
    from fleetseg.config import SourceConfig
    from fleetseg.console.evaluate import evaluate_and_show
    from fleetseg.experiment_file import load_experiment, make_evaluation
    from fleetseg.hosts import given_path

    show = partial(evaluate_and_show, model, as_json=as_json, norms=norms, cluster=cluster)
    if bool(dataset) == (experiment is not None):
        raise typer.BadParameter("name one of --dataset and --experiment")
    if experiment is None:
        folder = str(given_path(root)) if root else ""
        config = SourceConfig(kind=dataset, root=folder, split=split)
        settings = make_evaluation(overrides or ())
        show(config, pictures=pictures, settings=settings)
    elif pictures is not None:
        raise typer.BadParameter("--pictures goes with --dataset")
    else:
        show(load_experiment(experiment, overrides or ()), pictures=None)


@app.command()
@reports_errors
def norm_banks(
    model: o.ModelOrRun,
    dataset: o.BanksDataset = "synthetic",
    root: o.Root = "",
    split: o.Split = "train",
    by: o.BanksBy = "condition",
    debug: o.Debug = False,
) -> None:
    """Compute batch-norm statistics per condition, for fleetseg evaluate --norms banks.

    They are stored in the model's folder, with a classifier that recognises an image's condition.

    \b
    Examples:
      fleetseg norm-banks runs/tiny
      fleetseg norm-banks runs/camvid --dataset camvid --root data/camvid --by weather
    """  # noqa: D301
    from fleetseg.config import SourceConfig
    from fleetseg.console.norm_banks import fill_and_show
    from fleetseg.hosts import given_path

    folder = str(given_path(root)) if root else ""
    fill_and_show(model, SourceConfig(kind=dataset, root=folder, split=split), by)


app.command()(predict)


@app.command()
@reports_errors
def partition(
    experiment: o.ExperimentFile,
    overrides: o.Overrides = None,
    out: o.ManifestOut = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show which vehicle holds which samples, and check that no sample is on two sides of a split.

    \b
    Examples:
      fleetseg partition examples/tiny.toml
      fleetseg partition examples/tiny.toml --set partition.kind=dirichlet \\
        --set partition.clients=6 --out manifest.json
    """  # noqa: D301
    from fleetseg.console.datasets import partition_and_show
    from fleetseg.experiment_file import load_experiment

    described = load_experiment(experiment, overrides or ())
    partition_and_show(described, out, as_json=as_json)


@data_app.command("check")
@reports_errors
def data_check(
    path: o.DataPath,
    kind: o.OptionalKind = "",
    split: o.OptionalSplit = "",
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Read every sample once, list defective files, and note what is probably unintended.

    The exit code is 1 if there is a bad file, or an image that is in two splits.

    \b
    Examples:
      fleetseg data check data/camvid
      fleetseg data check data --split val --json
      fleetseg data check data/my-drives --kind folder
    """  # noqa: D301
    from fleetseg.console.datasets import check_and_show

    raise typer.Exit(check_and_show(path, kind=kind, split=split, as_json=as_json))


@data_app.command("synth")
@reports_errors
def data_synth(
    out: o.SynthOut,
    cities: o.Cities = "",
    conditions: o.Conditions = "",
    frames: o.Frames = 12,
    split: o.SynthSplit = "train",
    seed: o.Seed = 0,
    size: o.Size = "192x256",
    debug: o.Debug = False,
) -> None:
    """Generate synthetic street scenes with exact labels, in CamVid's layout.

    \b
    Examples:
      fleetseg data synth streets
      fleetseg data synth streets --cities amber,birch --conditions night,rain --size 360x480
    """  # noqa: D301
    from fleetseg.config import SourceConfig
    from fleetseg.console.datasets import synthesise

    config = SourceConfig(
        split=split,
        cities=names(cities),
        conditions=names(conditions),
        frames_per_drive=frames,
        seed=seed,
    )
    synthesise(out, config, size)


@app.command()
@reports_errors
def doctor(debug: o.Debug = False) -> None:
    """Check this machine: versions, processor, memory, GPUs, extras, cache, speed.

    \b
    Example:
      fleetseg doctor
    """  # noqa: D301
    from fleetseg.console.doctor import examine_and_show

    raise typer.Exit(examine_and_show())


@app.command()
@reports_errors
def demo(out: o.DemoOut = None, debug: o.Debug = False) -> None:
    """Train a fleet in four synthetic cities in three minutes, and compare it with its baselines.

    \b
    Examples:
      fleetseg demo
      fleetseg demo --out runs/my-demo
    """  # noqa: D301
    from fleetseg.console.demo import run_demo

    raise typer.Exit(run_demo(out))


app.command()(export)
app.command()(init)
app.command()(tune)
app.command()(sweep)
app.command()(compare)
app.command()(watch)
app.command()(report)
app.command()(release)
app.command()(releases)
app.command()(rollback)
app.command()(server)
app.command()(client)


def main() -> None:
    """Run the command line."""
    prepare_streams()
    try:
        app()
    finally:
        if lost := finish_streams():
            print_error(lost)
            sys.exit(1)
