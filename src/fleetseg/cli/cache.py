"""The commands for the cache of decoded samples, registered by `cli.app`."""

from __future__ import annotations

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors

cache_app = typer.Typer(no_args_is_help=True, help="List and clear the cache of decoded samples.")


@cache_app.command("list")
@reports_errors
def cache_list(as_json: o.Json = False, debug: o.Debug = False) -> None:
    """List the decoded samples in $FLEETSEG_CACHE: their source, size and last use.

    \b
    Examples:
      fleetseg data cache list
      fleetseg data cache list --json
      FLEETSEG_CACHE=/mnt/big/cache fleetseg data cache list
    """  # noqa: D301
    from fleetseg.console.cache import list_and_show

    list_and_show(as_json=as_json)


@cache_app.command("prune")
@reports_errors
def cache_prune(
    older_than: o.OlderThan = None,
    keep_gb: o.KeepGb = None,
    everything: o.Everything = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Remove incomplete stores and those of an old format; with options, complete ones too.

    Stores in use by a running process and files that fleetseg did not make are kept. Removed
    samples are decoded again when a run needs them.

    \b
    Examples:
      fleetseg data cache prune
      fleetseg data cache prune --older-than 30 --dry-run
      fleetseg data cache prune --keep-gb 20
      fleetseg data cache prune --all
    """  # noqa: D301
    from fleetseg.console.cache import prune_and_show
    from fleetseg.data.store.eviction import Rules

    if everything and (older_than is not None or keep_gb is not None):
        raise typer.BadParameter("--all goes without --older-than and --keep-gb")
    prune_and_show(Rules(older_than, keep_gb, everything), dry_run=dry_run, as_json=as_json)
