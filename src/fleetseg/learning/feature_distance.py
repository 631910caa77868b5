"""Feature distance: the encoder keeps to what it knew of some classes from ImageNet.

DAFormer, Hoyer, Dai, Van Gool, CVPR 2022, arXiv 2111.14887, section 3.3: the loss gets the mean of

    d = || F_ImageNet(x) - F(x) ||_2    (over channels, of each cell of the last features)

over the cells of which one of the classes covers more than a share, the one-hot labels being
average-pooled to the features' size. As in the authors' code, the mean is over all such cells of a
batch; where it has NaN without any, this has 0. F_ImageNet is in eval mode and never learns, F is
the encoder as it trains: with batch norms, the distance is not 0 at the ImageNet weights, because
the statistics are those of the batch.

Shapes: N images, K of the classes, D channels, h and w the features' resolution; features cover the
network's input including padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.config import FeatureDistanceConfig
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.learning.hardware import Hardware
from fleetseg.models.encoder import imagenet_encoder, last_features, watched_encoder
from fleetseg.models.segmenter import Segmenter

OPTION = "training.feature_distance"


@dataclass(frozen=True)
class FeatureDistance:
    """The term of a loss; a process makes it once and never changes it."""

    frozen: Segmenter  # the encoder alone, with its ImageNet weights
    classes: tuple[int, ...]  # train ids
    settings: FeatureDistanceConfig

    @classmethod
    def of(
        cls, settings: FeatureDistanceConfig, segmenter: Segmenter, space: LabelSpace
    ) -> FeatureDistance | None:
        """Make the term for a network, which is left unchanged; None if its weight is 0.

        Raises:
            ConfigError: no ImageNet weights for this network, or no class to go by.
            MissingExtra: the package with the weights is not installed.
        """
        if settings.weight == 0:
            return None
        frozen = imagenet_encoder(segmenter, OPTION)
        return cls(frozen, classes_of(settings, space), settings)

    def term(
        self, features_NDhw: Tensor, images_NCHW: Tensor, labels_NHW: Tensor, hardware: Hardware
    ) -> Tensor:
        """Return the weighted mean distance of a batch, 0 without a cell that counts.

        Args:
            features_NDhw: the trained encoder's, of these images.
            images_NCHW: in [0, 1].
            labels_NHW: integers; any that is no train id belongs to no class.
            hardware: where everything is, and in what format the frozen encoder computes.
        """
        with hardware.autocast():
            known_NDhw = last_features(self.frozen, images_NCHW)
        padded_hw = self.frozen.padded_hw((labels_NHW.shape[1], labels_NHW.shape[2]))
        cells_Nhw = cells_of_classes(
            labels_NHW,
            self.classes,
            ratio=self.settings.ratio,
            padded_hw=padded_hw,
            size_hw=(features_NDhw.shape[2], features_NDhw.shape[3]),
        )
        return self.settings.weight * mean_distance(features_NDhw, known_NDhw, cells_Nhw)


def classes_of(settings: FeatureDistanceConfig, space: LabelSpace) -> tuple[int, ...]:
    """Return the train ids of the classes, by default of the safety-critical ones.

    Raises:
        ConfigError: a name is no class, or none is given and none is critical.
    """
    names = settings.classes or space.critical
    for name in names:
        if name not in space.classes:
            raise unknown_name("class", name, space.classes, where=f"{OPTION}.classes")
    if not names:
        raise ConfigError(
            f"label space '{space.name}' has no safety-critical classes",
            where=f"{OPTION}.classes",
            expected="classes on which features keep to those of ImageNet",
            cure="Name some, for example those of things that can be counted",
        )
    return tuple(sorted({space.classes.index(name) for name in names}))


def cells_of_classes(
    labels_NHW: Tensor,
    classes: Sequence[int],
    *,
    ratio: float,
    padded_hw: tuple[int, int],
    size_hw: tuple[int, int],
) -> Tensor:
    """Mark the cells (N, h, w) of which one of the classes covers more than `ratio`.

    Args:
        labels_NHW: integers.
        classes: train ids.
        ratio: share of a cell's area, 0 to 1.
        padded_hw: the area that the cells divide; what the labels leave of it has no class.
        size_hw: number of cells.
    """
    bottom, right = padded_hw[0] - labels_NHW.shape[1], padded_hw[1] - labels_NHW.shape[2]
    ids_K = torch.tensor(classes, device=labels_NHW.device)
    is_class_NKHW = (labels_NHW.unsqueeze(1) == ids_K.view(1, -1, 1, 1)).float()
    padded_NKHW = functional.pad(is_class_NKHW, (0, right, 0, bottom))
    shares_NKhw = functional.adaptive_avg_pool2d(padded_NKHW, size_hw)
    return (shares_NKhw > ratio).any(dim=1)


def mean_distance(features_NDhw: Tensor, known_NDhw: Tensor, cells_Nhw: Tensor) -> Tensor:
    """Return the mean Euclidean distance of the marked cells' features; 0 if none is marked."""
    apart_NDhw = features_NDhw.float() - known_NDhw.float()
    distances_Nhw: Tensor = torch.linalg.vector_norm(apart_NDhw, dim=1)
    return (distances_Nhw * cells_Nhw).sum() / cells_Nhw.sum().clamp(min=1)


@contextmanager
def watching(model: nn.Module, distance: FeatureDistance | None) -> Iterator[list[Tensor]]:
    """Collect the features that the term needs, inside the block; nothing without a term."""
    if distance is None:
        yield []
        return
    assert isinstance(model, Segmenter)
    with watched_encoder(model) as seen:
        yield seen
