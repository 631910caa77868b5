"""Export a run's model as a folder with weights, config and card that is usable without the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fleetseg.errors import ConfigError
from fleetseg.hosts import given_path
from fleetseg.models.folder import find_model, load_model, save_again
from fleetseg.runs.folder import has_run
from fleetseg.runs.model_record import record_of_run
from fleetseg.runs.report import read_run


def export_folder(
    model: str | Path, out: str | Path, *, cluster: int | None = None, force: bool = False
) -> str:
    """Rewrite a model's folder, with a card that contains everything its run knows about it.

    Runs write such folders themselves, but older ones contain less. Returns the SHA-256 of the
    weights. A new folder is written atomically.

    Args:
        model: a run folder or a model folder.
        out: the folder to write.
        cluster: number of the cluster of vehicles whose model to export; None = the fleet's.
        force: replace the files of an existing folder.

    Raises:
        ConfigError: the folder exists already and `force` is not set.
        ModelError: there is no model, or it is the user's own network.
    """
    path, target = given_path(model), given_path(out)
    if target.exists() and not force:
        raise ConfigError(
            "it exists already", where=target, cure="Choose another --out, or use --force"
        )
    source = find_model(path)
    if target.exists() and target.samefile(source):
        raise ConfigError(
            "that is the model's own folder", where=target, cure="Choose another --out"
        )
    segmenter = load_model(source, cluster=cluster)
    if has_run(path):
        segmenter.record = record_of_run(read_run(path))
    if target.exists():
        return save_again(segmenter, target)  # file by file, each atomically
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        staged = Path(scratch) / "model"
        sha256 = save_again(segmenter, staged)
        staged.rename(target)
    return sha256
