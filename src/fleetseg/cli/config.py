"""`fleetseg config show`: the values of an experiment, and where each comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import cohort_words, reports_errors

config_app = typer.Typer(no_args_is_help=True, help="Show the settings of an experiment.")
Resolved = Annotated[
    bool,
    typer.Option("--resolved", help="Show each value's origin: default, preset, file, --set."),
]  # fmt: skip


@config_app.callback()
def _config() -> None:
    pass


@config_app.command("show")
@reports_errors
def config_show(
    experiment: o.OptionalExperiment = None,
    overrides: o.Overrides = None,
    resolved: Resolved = False,
    debug: o.Debug = False,
) -> None:
    """Print an experiment with all defaults filled in; without a file, only the defaults.

    \b
    Examples:
      fleetseg config show examples/tiny.toml --set seed=1
      fleetseg config show examples/tiny.toml --resolved --set method=fedprox
      fleetseg config show > my-experiment.toml
    """  # noqa: D301
    from fleetseg.config import Experiment
    from fleetseg.experiment_file import load_experiment, to_toml
    from fleetseg.runs.option_notes import notes_before
    from fleetseg.runs.origins import toml_with_origins

    if experiment is None and (overrides or resolved):
        raise typer.BadParameter("--set and --resolved need an EXPERIMENT.toml")
    described = Experiment() if experiment is None else load_experiment(experiment, overrides or ())
    remarks = [
        f"digest {described.digest}",
        f"asked each round: {cohort_words(described.federation.cohort)}",
    ]
    remarks += [f"note: {note}" for note in notes_before(described)]
    head = "".join(f"# {remark}\n" for remark in remarks)
    told = resolved and experiment is not None
    text = toml_with_origins(experiment, overrides or ()) if told else to_toml(described)  # type: ignore[arg-type]
    typer.echo(f"{head}{text}", nl=False)
