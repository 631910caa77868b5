"""`fleetseg release`, `releases` and `rollback`: the model that the vehicles are to drive."""

from __future__ import annotations

from pathlib import Path

import typer

from fleetseg.cli import options as o
from fleetseg.cli import release_options as r
from fleetseg.console import reports_errors


@reports_errors
def release(
    model: o.ModelOrRun,
    against: r.Against = None,
    policy: r.PolicyFile = None,
    models: r.Registry = Path("models"),
    on: r.ReleaseOn = None,
    on_clients: r.OnClients = False,
    fleet: r.OnFleet = None,
    wait: r.Wait = 60.0,
    out: r.ReleaseOut = None,
    dry_run: r.JudgeOnly = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Judge whether a model may go into the vehicles, and release it if it may.

    Candidate and current model are scored on the same frames. No critical class and no domain may
    fall, and robustness, calibration and latency may not get worse, by more than the policy allows.
    The exit code is 0 if the model is promoted, and 3 if it is refused.

    \b
    Examples:
      fleetseg release runs/camvid --against runs/last-week --policy examples/release-policy.toml
      fleetseg release runs/camvid --on-clients --dry-run
      fleetseg release runs/fleet --fleet fleet --wait 300
      fleetseg release new/model --on examples/camvid.toml --models fleet-models
    """  # noqa: D301
    from fleetseg.console.release import decide_and_show
    from fleetseg.experiment_file import load_experiment
    from fleetseg.judging.policy import load_policy
    from fleetseg.release.gate import Question

    question = Question(
        candidate=model,
        models=models,
        policy=load_policy(policy),
        against=against,
        on=None if on is None else load_experiment(on),
        on_clients=on_clients,
        fleet=fleet,
        wait_s=wait,
        out=out,
        dry_run=dry_run,
    )
    raise typer.Exit(decide_and_show(question, as_json=as_json))


@reports_errors
def releases(models: r.Registry = Path("models"), debug: o.Debug = False) -> None:
    """List the releases, which one is current, and whether their files are unchanged.

    \b
    Example:
      fleetseg releases --models fleet-models
    """  # noqa: D301
    from fleetseg.console.release import list_releases

    list_releases(models)


@reports_errors
def rollback(models: r.Registry = Path("models"), to: r.To = None, debug: o.Debug = False) -> None:
    """Make the previous release current again, or another one.

    \b
    Examples:
      fleetseg rollback
      fleetseg rollback --to 2 --models fleet-models
    """  # noqa: D301
    from fleetseg.console.release import roll_back_and_show

    roll_back_and_show(models, to)
