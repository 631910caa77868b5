"""Pixel contrast: pull pixels to the prototype of their class and away from all others.

The pixel contrast of FedSeg (Miao et al., CVPR 2023). Before a client trains, the received model is
run on all of its images: a class's prototype is the mean of its pixels' features over each image,
then over the images that show it. Classes that the client does not label are taken from that
model's confident predictions, so that all clients keep to the semantics of the global model.
Prototypes stay on the client (also in the authors' code).

Suffixes: D features, A anchors (pixels), K classes with a prototype.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.data.augment import to_batch
from fleetseg.data.labels import ERASED, IGNORE
from fleetseg.data.sample import Pairs
from fleetseg.errors import ModelError
from fleetseg.learning.class_means import class_means, labels_at_centres
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs
from fleetseg.models.features import find_classifier, watched_features, within_image
from fleetseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class Watched:
    """A network, and the name of its classifier layer, whose input are the features."""

    network: Segmenter
    classifier: str


@dataclass(frozen=True)
class Survey:
    """The received model, and the prototypes that it found in all images of a client."""

    received: Watched  # frozen
    prototypes_CD: Tensor  # unit length; zeros for classes without a prototype
    has_C: Tensor  # which classes have a prototype


def survey(inputs: LocalInputs, model: nn.Module, pairs: Pairs) -> Survey | None:
    """Run the received model on all samples; None in rounds before `start_round`.

    Raises:
        ModelError: the network is not a Segmenter, or has no pixel features.
    """
    settings, hardware = inputs.training.pixel_contrast, inputs.hardware
    if not isinstance(model, Segmenter):
        raise ModelError("prototypes need a Segmenter", got=type(model).__name__)
    # Also in the first round, or in the trial before it, to detect a network without features.
    classifier = find_classifier(model, inputs.training.crop or inputs.size_hw)
    if inputs.context.round < settings.start_round:
        return None
    received = Watched(copy.deepcopy(model).eval().requires_grad_(False), classifier)
    sums_CD, images_C = torch.zeros(0), torch.zeros(model.num_classes)
    with hardware.exact():
        for index in range(len(pairs)):
            floats_NCHW, labels_NHW = to_batch([pairs[index]])
            images_NCHW = hardware.put(floats_NCHW).contiguous(memory_format=hardware.memory_format)
            features_NDhw, guesses_Nhw = look(received, images_NCHW, hardware, settings.confidence)
            small_Nhw = _shrunk(labels_NHW, guesses_Nhw)
            known_Nhw = with_guesses(small_Nhw, guesses_Nhw, inputs.labelled)
            means_NCD, shows_NC = class_means(features_NDhw, known_Nhw, model.num_classes)
            sums_CD = means_NCD[0] if not index else sums_CD + means_NCD[0]
            images_C += shows_NC[0].cpu()
    has_C = images_C > 0
    return Survey(received, functional.normalize(sums_CD, dim=1), has_C.to(hardware.device))


@torch.no_grad()
def look(
    watched: Watched, images_NCHW: Tensor, hardware: Hardware, confidence: float
) -> tuple[Tensor, Tensor]:
    """Return features_NDhw of unit length, and confident predictions guesses_Nhw, int64.

    A guess is IGNORE where the largest probability is below `confidence`.
    """
    network = watched.network
    with watched_features(network, watched.classifier) as seen, hardware.autocast():
        logits_NCHW = network(images_NCHW)
    features_NDhw = unit_features(network, seen[-1], images_NCHW)
    size_hw = features_NDhw.shape[-2:]
    if logits_NCHW.shape[-2:] != size_hw:
        logits_NCHW = functional.interpolate(
            logits_NCHW.float(), size_hw, mode="bilinear", align_corners=False
        )
    sure_Nhw, ids_Nhw = logits_NCHW.float().softmax(dim=1).max(dim=1)
    return features_NDhw, ids_Nhw.where(sure_Nhw >= confidence, IGNORE)


def unit_features(network: Segmenter, features_NDhw: Tensor, images_NCHW: Tensor) -> Tensor:
    """Return features at unit length, without those of the padding."""
    size_hw = (images_NCHW.shape[2], images_NCHW.shape[3])
    return functional.normalize(within_image(network, features_NDhw, size_hw).float(), dim=1)


def _shrunk(labels_NHW: Tensor, like_Nhw: Tensor) -> Tensor:
    size_hw = (like_Nhw.shape[1], like_Nhw.shape[2])
    return labels_at_centres(labels_NHW, size_hw).long().to(like_Nhw.device)


def with_guesses(
    labels_Nhw: Tensor, guesses_Nhw: Tensor, labelled: Collection[int] | None
) -> Tensor:
    """Fill in guesses where there is no label; the rest is IGNORE.

    An erased pixel belongs to no class that the client labels, whatever the guess.
    """
    is_erased_Nhw = labels_Nhw == ERASED
    wrong_Nhw = torch.zeros_like(is_erased_Nhw)
    for train_id in labelled or ():
        wrong_Nhw |= is_erased_Nhw & (guesses_Nhw == train_id)
    guesses_Nhw = guesses_Nhw.where(~wrong_Nhw, IGNORE)
    return torch.where(is_erased_Nhw | (labels_Nhw == IGNORE), guesses_Nhw, labels_Nhw)


def contrast(
    features_NDhw: Tensor,
    labels_Nhw: Tensor,
    seen: Survey,
    *,
    temperature: float,
    most: int,
    draw: torch.Generator,
) -> Tensor | None:
    """Return the mean over anchors of -log(e^(a p+ / t) / sum over prototypes of e^(a p / t)).

    Anchors are pixels of classes with a prototype, at most `most`, spread evenly over the classes
    present; None if there are none. Features have unit length.
    """
    is_class_Nhw = labels_Nhw < ERASED
    counts_Nhw = is_class_Nhw & seen.has_C[labels_Nhw.where(is_class_Nhw, 0)]
    places_A = _anchors(labels_Nhw.where(counts_Nhw, IGNORE).flatten().cpu(), most, draw)
    if not len(places_A):
        return None
    places_A = places_A.to(features_NDhw.device)
    anchors_AD = features_NDhw.permute(0, 2, 3, 1).flatten(0, 2)[places_A]
    similarity_AC = anchors_AD @ seen.prototypes_CD.T / temperature
    similarity_AC = similarity_AC.where(seen.has_C, -torch.inf)
    return functional.cross_entropy(similarity_AC, labels_Nhw.flatten()[places_A])


def _anchors(labels_P: Tensor, most: int, draw: torch.Generator) -> Tensor:
    """Choose pixels, equally many of each class if it has enough."""
    classes = [c for c in torch.unique(labels_P).tolist() if c != IGNORE]
    chosen = []
    for train_id in classes:
        places = (labels_P == train_id).nonzero().flatten()
        share = max(1, most // len(classes))
        if len(places) > share:
            places = places[torch.randperm(len(places), generator=draw)[:share]]
        chosen.append(places)
    return torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)


def contrast_of(inputs: LocalInputs, seen: Survey) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the term to add to a batch's loss, a function of (features_NDhw, images, labels_NHW).

    It sums a contrast by the batch's labels, and one by the received model's confident predictions
    where there is no label.
    """
    settings = inputs.training.pixel_contrast
    # This generator is the client's own during training. If an objective passes a batch through
    # twice, it is rewound in between, so that both passes have the same anchors.
    draw = torch.default_generator

    def term(features_NDhw: Tensor, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        unit_NDhw = unit_features(seen.received.network, features_NDhw, images_NCHW)
        _, guesses_Nhw = look(seen.received, images_NCHW, inputs.hardware, settings.confidence)
        small_Nhw = _shrunk(labels_NHW, guesses_Nhw)
        own_Nhw = small_Nhw.where(small_Nhw != ERASED, IGNORE)
        guessed_Nhw = with_guesses(small_Nhw, guesses_Nhw, inputs.labelled)
        guessed_Nhw = guessed_Nhw.where(own_Nhw == IGNORE, IGNORE)
        parts = [
            contrast(unit_NDhw, ids_Nhw, seen, temperature=settings.temperature,
                     most=settings.anchors, draw=draw)
            for ids_Nhw in (own_Nhw, guessed_Nhw)
        ]  # fmt: skip
        there = [part for part in parts if part is not None]
        total = torch.stack(there).sum() if there else unit_NDhw[:0].sum()
        return settings.weight * total

    return term
