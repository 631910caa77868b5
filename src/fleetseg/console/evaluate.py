"""`fleetseg evaluate`: a saved model on a data set, at the labels' own resolution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from fleetseg.config import Experiment, SourceConfig
from fleetseg.console import count, say, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.tables import domains_table, iou_table, score_lines
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import Pairs
from fleetseg.data.sources import evenly_spaced, open_source
from fleetseg.data.spaces import open_space
from fleetseg.data.store.cache import default_cache_dir, open_store
from fleetseg.data.store.store import Store, View
from fleetseg.data.unusable import no_usable_sample
from fleetseg.errors import DataError, ModelError
from fleetseg.evaluation.pictures import side_by_side
from fleetseg.evaluation.predict import evaluate_by_domain, predict
from fleetseg.evaluation.scores import Scores, add_up, score_domains, sum_confs
from fleetseg.learning.hardware import resolve
from fleetseg.models.folder import load_model
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.evaluation_sets import open_test_sets
from fleetseg.runs.scoring import Conf_CC

_BATCH = 8
_PICTURES = 16
_BAD_LISTED = 10


@dataclass(frozen=True)
class Evaluated:
    """What a model scores on a data set."""

    scores: Scores
    by_domain: dict[str, Scores]
    num_images: int
    bad: tuple[str, ...]
    pictures: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        fields = self.scores.to_dict()
        fields["by_domain"] = {name: s.to_dict() for name, s in self.by_domain.items()}
        fields["images"] = self.num_images
        fields["bad"] = list(self.bad)
        fields["pictures"] = [str(path) for path in self.pictures]
        return fields


def evaluate_and_show(
    path: Path, config: SourceConfig, *, as_json: bool, pictures: Path | None
) -> None:
    """Score a model folder or run folder on a data set and print what came out."""
    with reading(stderr_console(), quiet=as_json) as progress:
        what = f"{config.kind}/{config.split}"
        result = evaluate(path, config, pictures, progress)
    _show(result, what, as_json=as_json)
    if result.pictures and not as_json:
        say(stdout_console(), f"{count(len(result.pictures), 'picture')} in {pictures}")


def evaluate_where(path: Path, experiment: Experiment, *, as_json: bool) -> None:
    """Score a model on the test frames of an experiment, grouped as it says, and print."""
    with reading(stderr_console(), quiet=as_json) as progress:
        result = evaluate_on(path, experiment, progress)
    _show(result, f"the test frames of {experiment.name}", as_json=as_json)


def _show(result: Evaluated, what: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    console, critical = stdout_console(), result.scores.space.critical
    console.print(iou_table(result.scores.to_dict(), critical))
    console.print()
    if len(result.by_domain) > 1:
        table = domains_table({name: s.to_dict() for name, s in result.by_domain.items()})
        console.print(table)
        console.print()
    for line in score_lines(result.scores.to_dict(), critical):
        console.print(Text(line))
    say(console, f"{count(result.num_images, 'image')} of {what}")
    for text in result.bad[:_BAD_LISTED]:
        say(console, f"bad sample skipped: {text}", "yellow")
    if (more := len(result.bad) - _BAD_LISTED) > 0:
        say(console, f"and {count(more, 'more bad sample')}: see fleetseg data check", "yellow")


def evaluate(
    path: Path,
    config: SourceConfig,
    pictures: Path | None = None,
    progress: Any = None,
) -> Evaluated:
    """Score a model on a data set whose labels are projected to the model's own label space.

    Raises:
        ModelError: no model there.
        ConfigError: the data set's labels cannot be projected to the model's label space.
        DataError: no usable labelled sample.
    """
    model, space, size_hw = _described(path)
    store = open_store(
        open_source(config),
        size_hw=size_hw,
        space=space,
        cache_dir=default_cache_dir(),
        native_labels=True,
        progress=progress,
    )
    good = [i for i in range(len(store)) if i not in store.bad and store.labelled[i]]
    if not good:
        raise no_usable_sample(f"{store.samples[0].dataset}/{config.split}", store)
    conf_by_domain = _confs(model, View(store, good), [store.samples[i].domain for i in good])
    return Evaluated(
        scores=Scores.of(sum_confs(conf_by_domain), space),
        by_domain=score_domains(conf_by_domain, space),
        num_images=len(good),
        bad=tuple(store.bad.values()),
        pictures=() if pictures is None else _draw(model, store, good, pictures),
    )


def evaluate_on(path: Path, experiment: Experiment, progress: Any = None) -> Evaluated:
    """Score a model on an experiment's evaluation sets, or else on its held-out frames.

    Raises:
        ModelError: no model there, or one of another label space.
        DataError: the experiment has neither evaluation sets nor held-out frames.
    """
    model, space, size_hw = _described(path)
    wanted = open_space(experiment.data)
    if space.classes != wanted.classes:
        raise ModelError(
            "the model has another label space than the experiment",
            where=path,
            got=space.name,
            expected=wanted.name,
        )
    if not experiment.data.evaluation and experiment.partition.holdout == 0:
        raise DataError(
            "the experiment has no test frames",
            where=experiment.name,
            cure="Add [[data.evaluation]] or partition.holdout",
        )
    sets, bad = open_test_sets(experiment, size_hw, progress)
    conf_by_domain = add_up(
        [_confs(model, part.scored.pairs, part.scored.domains) for part in sets]
    )
    return Evaluated(
        scores=Scores.of(sum_confs(conf_by_domain), space),
        by_domain=score_domains(conf_by_domain, space),
        num_images=sum(len(part.scored) for part in sets),
        bad=bad,
        pictures=(),
    )


def _described(path: Path) -> tuple[Segmenter, LabelSpace, tuple[int, int]]:
    model = load_model(path)
    if model.space is None or model.size_hw is None:
        raise ModelError("the model does not say its label space and size", where=path)
    return model, model.space, model.size_hw


def _confs(model: Segmenter, pairs: Pairs, domains: Sequence[str]) -> dict[str, Conf_CC]:
    hardware = resolve("auto", "auto")
    return evaluate_by_domain(
        model.to(hardware.device),
        pairs,
        domains,
        num_classes=model.num_classes,
        batch_size=_BATCH,
        device=hardware.device,
        context=hardware.inference,
    )


def _draw(model: Segmenter, store: Store, good: Sequence[int], folder: Path) -> tuple[Path, ...]:
    """Write some pictures, evenly spaced over the data set."""
    assert model.space is not None
    hardware = resolve("auto", "auto")
    folder.mkdir(parents=True, exist_ok=True)
    number_of = {store.samples[i]: i for i in good}
    paths = []
    for sample in evenly_spaced(list(number_of), min(_PICTURES, len(good))):
        image_HWC, label_HW = store.pair(number_of[sample])
        pred_HW = predict(
            model,
            image_HWC[None],
            (label_HW.shape[0], label_HW.shape[1]),
            device=hardware.device,
            context=hardware.inference,
        )[0]
        picture = side_by_side(image_HWC, label_HW, {"prediction": pred_HW}, model.space)
        paths.append(folder / (sample.id.replace("/", "_") + ".png"))
        picture.save(paths[-1])
    return tuple(paths)
