"""MOON: keep features closer to the received model's than to the client's own last model's.

Li, He, Song 2021, Model-Contrastive Federated Learning, arXiv 2103.16257, equations 3 and 4. Added
to the loss is mu times

    -log( e^{cos(z, z_glob) / tau} / (e^{cos(z, z_glob) / tau} + e^{cos(z, z_prev) / tau}) ).

In the paper, z is one vector per image. Here it is one per class in each image: the mean over the
class's pixels of the classifier's input features (no projection head is added). z_glob and z_prev
come from frozen networks in eval mode, as in the authors' code, that is with running statistics and
without dropout; z comes from the pass that computes the loss, in training mode. The client's own
last model is kept complete, including statistics. Before there is one, the received model takes its
place and the term is mu log 2 whatever the weights, so nothing needs to be computed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.learning.class_means import class_means, labels_at_centres
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables
from fleetseg.learning.supervision import StepLoss
from fleetseg.models.features import find_classifier, watched_features
from fleetseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class _Memo:
    inputs: LocalInputs
    classifier: str
    received: Segmenter
    last: Segmenter | None  # the client's own; None before there is one


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    network = shared.network
    assert isinstance(network, Segmenter)
    # Do both in a client's first round too, so that the trial step before round 1 detects a network
    # that does not support them.
    classifier = find_classifier(network, inputs.training.crop or inputs.size_hw)
    received = _frozen(network, {})
    last = _frozen(network, inputs.state) if inputs.state else None
    return _Memo(inputs, classifier, received, last)


def _frozen(network: Segmenter, values: Mapping[str, Tensor]) -> Segmenter:
    """Copy a network, replacing given values; counters do not matter in eval mode."""
    made = copy.deepcopy(network).eval().requires_grad_(False)
    made.load_state_dict(dict(values), strict=False)
    return made


def _loss(memo: _Memo, loss_of: StepLoss) -> StepLoss:
    settings, last = memo.inputs.training.moon, memo.last

    def first(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        loss = loss_of(model, images_NCHW, labels_NHW)
        return None if loss is None else loss + settings.mu * math.log(2)

    def contrasted(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        assert isinstance(model, Segmenter)
        assert last is not None
        with watched_features(model, memo.classifier) as seen:
            loss = loss_of(model, images_NCHW, labels_NHW)
        if loss is None:
            return None
        there_NHW = memo.inputs.hardware.put(labels_NHW)
        means_NCD, present_NC = _means(model, seen, there_NHW)
        received_NCD = _frozen_means(memo, memo.received, images_NCHW, there_NHW)
        last_NCD = _frozen_means(memo, last, images_NCHW, there_NHW)
        term = contrast(means_NCD, received_NCD, last_NCD, present_NC, settings.tau)
        return loss + settings.mu * term

    return first if last is None else contrasted


@torch.no_grad()
def _frozen_means(
    memo: _Memo, network: Segmenter, images_NCHW: Tensor, labels_NHW: Tensor
) -> Tensor:
    with watched_features(network, memo.classifier) as seen, memo.inputs.hardware.autocast():
        network(images_NCHW)
    return _means(network, seen, labels_NHW)[0]


def _means(network: Segmenter, seen: list[Tensor], labels_NHW: Tensor) -> tuple[Tensor, Tensor]:
    (features_NDhw,) = seen
    covered_hw = network.padded_hw((labels_NHW.shape[1], labels_NHW.shape[2]))
    size_hw = (features_NDhw.shape[2], features_NDhw.shape[3])
    labels_Nhw = labels_at_centres(labels_NHW, size_hw, covered_hw)
    means_NCD, present_NC = class_means(features_NDhw, labels_Nhw, network.num_classes)
    # Replace missing means by ones: cosines of zeros have no gradient.
    return means_NCD.where(present_NC.unsqueeze(2), 1.0), present_NC


def contrast(
    means_NCD: Tensor, received_NCD: Tensor, last_NCD: Tensor, present_NC: Tensor, tau: float
) -> Tensor:
    """Return the mean contrastive term over the classes present; 0 if none is."""
    near_NC = functional.cosine_similarity(means_NCD, received_NCD, dim=2)
    far_NC = functional.cosine_similarity(means_NCD, last_NCD, dim=2)
    terms_NC = functional.softplus((far_NC - near_NC) / tau) * present_NC
    return terms_NC.sum() / present_NC.sum().clamp(min=1)


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    assert shared.network is not None
    values = shared.network.state_dict()
    return {k: t.to("cpu", copy=True) for k, t in values.items() if t.is_floating_point()}, {}


MOON = Objective(begin=_begin, loss=_loss, end=_end)
