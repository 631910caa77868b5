"""Which statistics batch norms are scored with: the model's own, or those of the test images.

A choice is a `NormStatistics` in `NORM_STATISTICS`. All except "running" and "banks" are
transductive: they use unlabelled test images, in the order of the set and in batches whose sizes
differ by at most one, domain by domain, so that no image is normalised together with images of
another domain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fleetseg.config import AdaptationConfig, CottaLikeConfig, EvaluationConfig, TentConfig
from fleetseg.data.sample import Pairs, ScoredPairs
from fleetseg.errors import ConfigError, DataError, OutOfMemory
from fleetseg.evaluation.adaptation import OnChoice, Passes, Reader, require_affine
from fleetseg.evaluation.banked import Banked
from fleetseg.evaluation.confusion import Conf_CC, confusion
from fleetseg.evaluation.cotta_like import CottaLike
from fleetseg.evaluation.predict import (
    Context,
    Images_NHWC,
    OnImage,
    at_size,
    evaluate_by_domain,
    evaluating,
    forward,
    unheard,
)
from fleetseg.evaluation.tent import Tent
from fleetseg.learning.batches import batches_per_epoch
from fleetseg.memory import first_words, is_out_of_memory
from fleetseg.models.norm_banks import NormBanks
from fleetseg.models.norm_statistics import (
    Statistics,
    batch_norms,
    gather,
    layer_moments,
    lent_statistics,
    lone_value,
    normalised,
    own_statistics,
    statistic_keys,
    statistics_of,
)
from fleetseg.text import listing

OfBatch = Callable[[Statistics, Statistics, int, int], Statistics]
"""(model's statistics, batch's statistics, images in the batch, N of the settings) -> result."""


@dataclass(frozen=True)
class NormStatistics:
    """One choice of statistics.

    Args:
        takes_own: uses the model's running statistics, which must then be those of training.
        of_batch: computes a layer's statistics from its own and those of a test batch.
        of_domain: uses statistics of all images of a domain, from a pass before the scored one.
        reads: makes a Reader, which predicts images in its own way.
        learns: the Reader learns from test images, with the statistics of each batch.
        affine: changes gains and biases of batch norms, which must exist.
        banked: uses statistics from banks that are filled for a finished model.
    """

    takes_own: bool
    of_batch: OfBatch | None = None
    of_domain: bool = False
    reads: Callable[[Passes, Norms], Reader] | None = None
    learns: bool = False
    affine: bool = False
    banked: bool = False


def _adapted(own: Statistics, batch: Statistics, num_images: int, prior: int) -> Statistics:
    """Mix both: N / (N + n) of the model's own and n / (N + n) of a batch of n images.

    Schneider, Rusak, Eck, Bringmann, Brendel, Bethge 2020, arXiv 2006.16971.
    """
    weight = num_images / (prior + num_images)
    return own[0].lerp(batch[0], weight), own[1].lerp(batch[1], weight)


NORM_STATISTICS: dict[str, NormStatistics] = {
    "running": NormStatistics(takes_own=True),
    "batch": NormStatistics(takes_own=False, of_batch=lambda own, batch, images, prior: batch),
    "domain": NormStatistics(takes_own=False, of_domain=True),
    "adapted": NormStatistics(takes_own=True, of_batch=_adapted),
    "tent": NormStatistics(
        takes_own=False,
        reads=lambda passes, norms: Tent(passes, norms.tent),
        learns=True,
        affine=True,
    ),
    "cotta-like": NormStatistics(
        takes_own=False,
        reads=lambda passes, norms: CottaLike(passes, norms.cotta_like),
        learns=True,
    ),
    "banks": NormStatistics(
        takes_own=False, reads=lambda passes, norms: _banked(passes, norms), banked=True
    ),
}


@dataclass(frozen=True)
class Norms:
    """A choice with its parameters, as recorded with scores."""

    name: str = "running"
    batch_size: int = 8
    prior_images: int = 16  # N of "adapted"
    tent: TentConfig = field(default_factory=TentConfig)
    cotta_like: CottaLikeConfig = field(default_factory=CottaLikeConfig)
    banks: NormBanks | None = None  # the model's, for "banks"

    def __str__(self) -> str:
        """Return the text that scores must share to be comparable."""
        of_batches = f" of batches of {self.batch_size}"
        return {
            "running": "running",
            "banks": f"banks of {self.banks}",
            "adapted": f"adapted (N = {self.prior_images}){of_batches}",
            "tent": f"tent ({_values_of(self.tent)}){of_batches}",
            "cotta-like": f"cotta-like ({_values_of(self.cotta_like)}){of_batches}",
        }.get(self.name, self.name + of_batches)

    @classmethod
    def on_server(cls, settings: EvaluationConfig) -> Norms:
        """Return the choice with which an experiment scores the server's sets."""
        return cls.of(settings.norms, settings)

    @classmethod
    def on_clients(cls, settings: EvaluationConfig) -> Norms:
        """Return the choice with which an experiment scores clients' own frames."""
        return cls.of(settings.norms_on_clients, settings)

    @classmethod
    def of(cls, name: str, settings: EvaluationConfig) -> Norms:
        """Return a choice with the experiment's parameters for it."""
        size, prior = settings.batch_size, settings.adapted.prior_images
        return cls(name, size, prior, settings.tent, settings.cotta_like)

    @property
    def chosen(self) -> NormStatistics:
        """The choice of this name."""
        return NORM_STATISTICS[self.name]


def _banked(passes: Passes, norms: Norms) -> Banked:
    assert norms.banks is not None, "a model's banks are loaded with it"
    return Banked(passes, norms.banks)


def _values_of(settings: AdaptationConfig) -> str:
    """Format a section in one line.

    >>> _values_of(TentConfig())
    'online, adam, lr 0.001, steps 1'
    """
    fields = settings.model_dump()
    first = [str(fields.pop("mode")), str(fields.pop("optimiser"))]
    return ", ".join(
        first + [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in fields.items()]
    )


def _plain(value: object) -> str:
    return "/".join(map(_plain, value)) if isinstance(value, tuple) else f"{value:g}"


RUNNING = Norms()


def can_score(model: nn.Module, untrained: Collection[str], norms: Norms) -> bool:
    """Return whether a model with some untrained keys can be scored."""
    return not untrained or (
        not norms.chosen.takes_own and statistic_keys(model).issuperset(untrained)
    )


def require_scorable(
    model: nn.Module, untrained: Collection[str], norms: Norms, *, where: str
) -> None:
    """Refuse to score a model with values that no training has reached.

    `untrained` are the state-dict keys that stay on clients: the server, and a saved model, have
    only their start values. Running statistics of batch norms can be replaced by those of the test
    images; for anything else there is no replacement.

    Raises:
        ConfigError: with what is missing and what would be needed; or the model has no gains and
            biases of batch norms, and the choice needs them.
    """
    if norms.chosen.affine:
        require_affine(model, where)
    if can_score(model, untrained, norms):
        return
    if missing := sorted(set(untrained) - statistic_keys(model)):
        raise ConfigError(
            f"this model cannot be scored without a client: {len(missing)} of its tensors "
            f"({listing([key.removeprefix('net.') for key in missing], 3)}) stay with each client, "
            "and only their start values are here",
            where=where,
            cure="Score on the clients, where their own part is used: partition.holdout without "
            "[[data.evaluation]], or evaluation.on_clients",
        )
    raise ConfigError(
        "this model cannot be scored with running statistics: those of its batch norms stay "
        "with each client, and only their start values are here",
        where=where,
        got=f"norms = '{norms.name}'",
        cure="Use the test images' own: norms = 'domain' or 'batch'",
    )


def score_by_domain(
    model: nn.Module,
    scored: ScoredPairs,
    norms: Norms,
    *,
    num_classes: int,
    device: torch.device | str = "cpu",
    context: Context = nullcontext,
    on_choice: OnChoice = lambda domain, choice: None,
    on_image: OnImage = unheard,
) -> dict[str, Conf_CC]:
    """Score a model on all pairs: one confusion matrix per domain.

    `on_choice` is called with (domain, bank) for each image scored with the norms "banks",
    `on_image` with each image's contribution to its domain.

    Raises:
        DataError: no pairs, a label id outside the classes, or a domain too small for its norms.
        ModelError: the model does not return logits of `num_classes` classes.
        OutOfMemory: not even one image fits or, with norms of test images, one batch.
    """
    if norms.name == "running" or not len(scored):
        return evaluate_by_domain(
            model,
            scored.pairs,
            scored.domains,
            num_classes=num_classes,
            batch_size=norms.batch_size,
            device=device,
            context=context,
            on_image=on_image,
        )
    run = partial(forward, model, device=device, context=context, num_classes=num_classes)
    names = np.array(scored.domains)
    confs: dict[str, Conf_CC] = {}
    with evaluating(model):
        reads = norms.chosen.reads
        reader = reads and reads(Passes(model, num_classes, device, context, on_choice), norms)
        for domain in sorted(set(scored.domains)):
            if reader:
                reader.begin_domain(domain)
            own = np.flatnonzero(names == domain)
            confs[domain] = _score_domain(model, scored.pairs, own, norms, reader or run, on_image)
    return confs


def _score_domain(
    model: nn.Module,
    pairs: Pairs,
    indices: np.ndarray,
    norms: Norms,
    run: Callable[[Images_NHWC], Tensor],
    on_image: OnImage,
) -> Conf_CC:
    parts = np.array_split(indices, batches_per_epoch(len(indices), norms.batch_size))

    def look(part: np.ndarray) -> Tensor:
        return run(stacked([pairs[int(i)][0] for i in part]))

    confs = []
    try:
        with using(model, norms, [partial(look, part) for part in parts]):
            for part in parts:
                for index, logits_CHW in zip(part, look(part), strict=True):
                    label_HW = pairs[int(index)][1]
                    pred_HW = at_size(logits_CHW[None], label_HW.shape)[0]
                    confs.append(confusion(label_HW, pred_HW, len(logits_CHW)))
                    on_image(int(index), confs[-1])
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory while scoring a batch, which norms of test images need whole",
            got=first_words(error),
            cure="Use a smaller evaluation.batch_size",
        ) from None
    return sum(confs[1:], confs[0])


def stacked(images: Sequence[np.ndarray]) -> Images_NHWC:
    """Stack images into one batch.

    Raises:
        DataError: they differ in size.
    """
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise DataError(
            "images of several sizes cannot form a batch for norm statistics",
            got=", ".join(str(size) for size in sorted(sizes)[:3]),
            cure="Give images of one size, or norm statistics = 'running'",
        )
    return np.stack(images)


def using(
    model: nn.Module, norms: Norms, passes: Sequence[Callable[[], object]] = ()
) -> AbstractContextManager[None]:
    """Make a model in evaluation mode use the chosen statistics inside the block.

    `passes` send all images of a domain through the model, one batch each; they are run if
    statistics of the whole domain are needed.

    Raises:
        DataError: a layer sees one value per channel.
    """
    if norms.chosen.of_domain:
        return lent_statistics(model, statistics_of(model, gather(model, passes)))
    of_batch = norms.chosen.of_batch
    if of_batch is None:
        return nullcontext()
    own = {name: own_statistics(module) for name, module in batch_norms(model).items()}

    def choose(layer: str, features: Tensor) -> Statistics:
        count, mean_C, var_C = layer_moments(features)
        if count < 2:
            raise lone_value(layer)
        return of_batch(own[layer], (mean_C, var_C), len(features), norms.prior_images)

    return normalised(model, choose)
