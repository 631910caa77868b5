"""A trained model ready for inference: on its device, with its classes and its working size.

Suffixes: N images, H x W pixels, C classes. Images are given at the model's working size; logits
are resized to the requested size, as in a run's own scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import ConfigError, ModelError, unknown_name
from fleetseg.evaluation import predict
from fleetseg.evaluation.adaptation import OnChoice, Passes
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.norms import (
    NORM_STATISTICS,
    RUNNING,
    Norms,
    require_scorable,
    score_by_domain,
    using,
)
from fleetseg.evaluation.predict import Looked
from fleetseg.hosts import given_path
from fleetseg.learning.hardware import Hardware, resolve
from fleetseg.models.folder import load_model
from fleetseg.models.norm_banks import load_norm_banks
from fleetseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class ReadyModel:
    """A model with all that inference needs."""

    segmenter: Segmenter
    where: str  # its name in errors
    space: LabelSpace
    size_hw: tuple[int, int]  # working size: images are resized to it before the network
    hardware: Hardware
    norms: Norms = RUNNING
    folder: Path | None = None  # where the model was loaded from

    def with_norms(self, norms: Norms) -> ReadyModel:
        """Choose the statistics that batch norms use.

        Raises:
            ConfigError: no such choice; the model lacks the parts that stayed with clients.
            ModelError: norm banks are requested, and the model has none or they are not its own.
        """
        if norms.name not in NORM_STATISTICS:
            raise unknown_name("norm statistics", norms.name, NORM_STATISTICS)
        require_scorable(self.segmenter, self.segmenter.untrained, norms, where=self.where)
        if norms.chosen.banked and norms.banks is None:
            if self.folder is None:
                raise ConfigError(
                    "norm banks are in a model's folder, and this model is an object",
                    where=self.where,
                    cure="Give the path of its folder",
                )
            norms = replace(norms, banks=load_norm_banks(self.folder, self.segmenter))
        return replace(self, norms=norms)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Keep the model on its device within the block, and move it back afterwards."""
        home = self.segmenter.mean.device
        if home == self.hardware.device:
            yield
            return
        self.segmenter.to(self.hardware.device)
        try:
            yield
        finally:
            self.segmenter.to(home)

    def predict(
        self, images_NHWC: npt.NDArray[np.uint8], size_hw: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Return class ids at `size_hw`, shape (N, *size_hw); see `look`."""
        return np.concatenate(self.look(images_NHWC, partial(predict.at_size, size_hw=size_hw)))

    def look(
        self, images_NHWC: npt.NDArray[np.uint8], make: Callable[[Tensor], Looked]
    ) -> list[Looked]:
        """Return what `make` makes of the logits (N, C, h, w), float32; for use within `on_device`.

        There is one value for each part into which memory forced the batch to be split. Norms with
        batch statistics need the whole batch.

        Raises:
            DataError: batch statistics of a single image that give a layer one value per channel.
            OutOfMemory: not even one image fits.
        """
        assert not self.norms.chosen.of_domain
        assert not self.norms.chosen.learns
        model, hardware = self.segmenter, self.hardware
        context = hardware.inference
        if reads := self.norms.chosen.reads:
            passes = Passes(model, model.num_classes, hardware.device, context)
            with predict.evaluating(model):
                return [make(reads(passes, self.norms)(images_NHWC))]

        def look(part_NHWC: npt.NDArray[np.uint8]) -> Looked:
            return make(predict.forward(model, part_NHWC, device=hardware.device, context=context))

        with predict.evaluating(model), using(model, self.norms):
            if self.norms.name != "running":
                return [look(images_NHWC)]
            return predict.in_parts(look, images_NHWC, hardware.device)

    def confusion(
        self, scored: ScoredPairs, on_choice: OnChoice = lambda domain, choice: None
    ) -> dict[str, Conf_CC]:
        """Return a confusion matrix for each domain; for use within `on_device`.

        `on_choice` is called with (domain, bank) for each image that is scored with norm banks.

        Raises:
            DataError: there are no pairs, or a domain has too few images for its norms.
            OutOfMemory: not even one image fits.
        """
        return score_by_domain(
            self.segmenter,
            scored,
            self.norms,
            num_classes=self.segmenter.num_classes,
            device=self.hardware.device,
            context=self.hardware.inference,
            on_choice=on_choice,
        )


def ready_model(
    model: Segmenter | str | Path,
    device: str = "auto",
    precision: str = "auto",
    norms: Norms | None = RUNNING,
    cluster: int | None = None,
) -> ReadyModel:
    """Load a model unless it is loaded already, and choose device, precision and norms.

    Args:
        model: a run folder, a model folder, or what `load_model` returns.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        norms: statistics that batch norms use; None = `with_norms` is called later.
        cluster: the number of a cluster of vehicles, for its model; None = the fleet's.

    Raises:
        ModelError: there is no such model or cluster, or the model does not say what its classes
            mean.
        ConfigError: this machine does not have the device or the number format; the model lacks the
            parts that stayed with the clients that trained it.
    """
    hardware = resolve(device, precision)
    folder = None if isinstance(model, Segmenter) else given_path(model)
    if isinstance(model, Segmenter):
        if cluster is not None:
            raise ModelError(
                "a loaded model already belongs to one cluster",
                got=f"cluster = {cluster}",
                cure="Give the folder, or load it with fleetseg.load_model(path, cluster=...)",
            )
        segmenter, where = model, model.name
    else:
        segmenter, where = load_model(given_path(model), cluster=cluster), str(model)
    if segmenter.space is None or segmenter.size_hw is None:
        raise ModelError(
            "the model does not say its label space and size",
            where=where,
            cure="Save it with its run and load it: fleetseg.load_model(run.folder, net)",
        )
    ready = ReadyModel(
        segmenter, where, segmenter.space, segmenter.size_hw, hardware, folder=folder
    )
    return ready if norms is None else ready.with_norms(norms)
