"""`fleetseg.evaluate`: the scores of a saved model, at the labels' own resolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fleetseg.config import EvaluationConfig, Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.pool import Progress
from fleetseg.data.sources import evenly_spaced
from fleetseg.errors import ConfigError
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.norms import Norms
from fleetseg.evaluation.pictures import side_by_side
from fleetseg.evaluation.protocol import is_inductive
from fleetseg.evaluation.scores import Scores, add_up, score_domains, sum_confs
from fleetseg.experiment_file import load_experiment
from fleetseg.hosts import given_path
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.scored_frames import (
    ScoredFrames,
    ScoredOn,
    open_scored_frames,
    own_experiment,
)

_PICTURES = 16


@dataclass(frozen=True)
class Evaluated:
    """The scores of a model: pixel counts, from which every ratio is taken."""

    space: LabelSpace
    conf_by_domain: Mapping[str, Conf_CC]  # int64, (classes, classes): rows = truth
    num_images: int
    bad: tuple[str, ...] = ()  # samples that were left out, each with the reason
    notes: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    norms: str = "running"  # statistics of batch norms: see evaluation.norms
    banks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # images: domain -> bank

    @property
    def transductive_images(self) -> int:
        """Number of unlabelled test images that norm layers used; 0 = none."""
        return 0 if is_inductive(self.norms) else self.num_images

    @cached_property
    def scores(self) -> Scores:
        """The scores over all images."""
        return Scores.of(sum_confs(self.conf_by_domain), self.space)

    @cached_property
    def by_domain(self) -> dict[str, Scores]:
        """The scores of each domain."""
        return score_domains(self.conf_by_domain, self.space)

    @property
    def miou(self) -> float:
        """Mean IoU in [0, 1] over the classes with a union; NaN if there is none."""
        return self.scores.miou

    @property
    def critical_miou(self) -> float:
        """Mean IoU over the safety-critical classes with a union; NaN if there is none."""
        return self.scores.critical_miou

    @property
    def iou(self) -> dict[str, float]:
        """The IoU of each class; NaN for one that is neither true nor predicted anywhere."""
        return dict(zip(self.space.classes, self.scores.iou_C.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        fields = self.scores.to_dict()
        fields["by_domain"] = {name: s.to_dict() for name, s in self.by_domain.items()}
        fields["images"] = self.num_images
        fields["bad"] = list(self.bad)
        fields["norms"] = self.norms
        fields["transductive_images"] = self.transductive_images
        if self.banks:
            fields["banks"] = {domain: dict(chosen) for domain, chosen in self.banks.items()}
        fields["pictures"] = [str(path) for path in self.pictures]
        return fields


def evaluate(
    model: Segmenter | str | Path,
    on: ScoredOn | str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    norms: str | None = None,
    settings: EvaluationConfig | None = None,
    cluster: int | None = None,
    pictures: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Score a model on labelled images, exactly as a run would.

    Args:
        model: a run folder, a model folder, or what `load_model` returns.
        on: an Experiment or the path of its TOML file (its evaluation sets, or else its held-out
            frames); a SourceConfig (a data set, its labels projected to the model's classes); or
            your own (image, label) collections by name, as `run` takes them. Default: what the run
            in the folder `model` was scored on.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        batch_size: images at a time. Default: the experiment's, else 8.
        norms: statistics of batch norms: "running" (the model's own), or those of the test images,
            "batch", "domain", "adapted", "tent", "cotta-like"; or "banks", the model's for each
            condition. Default: the experiment's, else "running".
        settings: the settings of these norms: `EvaluationConfig(tent=...)`. Default: as for norms.
        cluster: the number of a cluster of vehicles, for its model. Default: the fleet's.
        pictures: a folder for some pictures: image, truth and prediction side by side.
        progress: called while the data are read.

    Raises:
        ModelError: there is no model, or it has another label space than an experiment.
        ConfigError: labels that cannot be projected to the model's classes, or nothing to score on;
            a model without what stayed with the clients that trained it.
        DataError: no usable labelled sample; a sample of your own data that cannot be used.
        OutOfMemory: not even one image fits.
    """
    ready = ready_model(model, device, precision, norms=None, cluster=cluster)
    where = _scored_on(model, on)
    chosen = _norms(settings or _settings(where), norms, batch_size, drawn=pictures is not None)
    ready = ready.with_norms(chosen)
    folder = None if pictures is None else given_path(pictures)
    return _evaluated(ready, open_scored_frames(where, ready, progress), folder)


def _evaluated(ready: ReadyModel, frames: ScoredFrames, pictures: Path | None) -> Evaluated:
    """Score the frames, and draw some of them if there is a folder for pictures."""
    banks: dict[str, Counter[str]] = {}

    def note_choice(domain: str, bank: str) -> None:
        banks.setdefault(domain, Counter())[bank] += 1

    with ready.on_device():
        by_set = [ready.confusion(part.scored, note_choice) for part in frames.sets]
        drawn = () if pictures is None else _draw(ready, frames, pictures)
    confs, norms = add_up(by_set), str(ready.norms)
    return Evaluated(ready.space, confs, len(frames), frames.bad, frames.notes, drawn, norms, banks)


def _settings(on: ScoredOn) -> EvaluationConfig:
    return on.evaluation if isinstance(on, Experiment) else EvaluationConfig()


def _norms(
    settings: EvaluationConfig, name: str | None, batch_size: int | None, *, drawn: bool
) -> Norms:
    if batch_size is not None and batch_size < 1:
        raise ConfigError("unusable batch_size", got=batch_size, expected="1 or more")
    chosen = Norms.on_server(settings)
    size = batch_size or chosen.batch_size
    chosen = replace(chosen, name=name or chosen.name, batch_size=size)
    if drawn and chosen.name != "running":
        raise ConfigError(
            "pictures are drawn one by one, which works with running statistics only",
            got=f"norms = '{chosen.name}'",
            cure="Leave pictures out",
        )
    return chosen


def _scored_on(model: Segmenter | str | Path, on: ScoredOn | str | Path | None) -> ScoredOn:
    if isinstance(on, str | Path):
        return load_experiment(given_path(on))
    if on is not None:
        return on
    if isinstance(model, Segmenter):
        raise ConfigError(
            "nothing to score on",
            cure="Give on=: an experiment, a SourceConfig or (image, label) pairs by name",
        )
    return own_experiment(given_path(model))


def _draw(ready: ReadyModel, frames: ScoredFrames, folder: Path) -> tuple[Path, ...]:
    """Write some pictures, evenly spaced over all frames."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, part, number in evenly_spaced(list(frames.named_frames()), _PICTURES):
        image_HWC, label_HW = part.scored.pairs[number]
        pred_HW = ready.predict(image_HWC[None], (label_HW.shape[0], label_HW.shape[1]))[0]
        picture = side_by_side(image_HWC, label_HW, {"prediction": pred_HW}, ready.space)
        paths.append(folder / (name.replace("/", "_") + ".png"))
        picture.save(paths[-1])
    return tuple(paths)
