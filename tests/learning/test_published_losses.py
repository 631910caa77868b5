"""Hard-pixel losses of published systems, by hand and against their code as it stands."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.learning.losses import build_loss, ohem
from fleetseg.learning.published_losses import ohem_feddrive, ohem_fedseg


def images_of(*images: list[float]) -> Tensor:
    """Logits (N, 2, 1, P) that give class 0 these probabilities, image by image."""
    first_NP = torch.tensor(images)
    return torch.stack([first_NP.log(), (1 - first_NP).log()], dim=1)[:, :, None]


def random_batch(seed: int, ignored: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_NCHW = 2 * torch.randn(2, 4, 6, 8, generator=generator)
    labels_NHW = torch.randint(0, 4, (2, 6, 8), generator=generator)
    labels_NHW[torch.rand(2, 6, 8, generator=generator) < ignored] = IGNORE
    return logits_NCHW, labels_NHW


def test_feddrive_takes_its_share_of_each_image_by_hand() -> None:
    logits_NCHW = images_of([0.5, 0.25, 0.8, 0.9], [0.9, 0.9, 0.9, 0.9])
    labels_NHW = torch.zeros(2, 1, 4, dtype=torch.long)
    # Half of each: ln 2 and ln 4 of the first image, twice -ln 0.9 of the easy second.
    expected = (math.log(2) + math.log(4) - 2 * math.log(0.9)) / 4
    assert ohem_feddrive(logits_NCHW, labels_NHW, 0.5).item() == pytest.approx(expected)
    # Ours takes the hardest half of the batch, whichever image they are in.
    ours = (math.log(2) + math.log(4) - math.log(0.8) - math.log(0.9)) / 4
    assert ohem(logits_NCHW, labels_NHW, 0.5).item() == pytest.approx(ours)


def test_feddrive_counts_ignored_pixels_as_zeros_by_hand() -> None:
    labels_NHW = torch.tensor([[[0, IGNORE, IGNORE, IGNORE]]])
    value = ohem_feddrive(images_of([0.5, 0.1, 0.1, 0.1]), labels_NHW, 0.5)
    assert value.item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("ignored", [0.0, 0.5, 0.95])
def test_feddrive_is_its_published_code(ignored: float) -> None:
    logits_NCHW, labels_NHW = random_batch(3, ignored)
    loss = functional.cross_entropy(logits_NCHW, labels_NHW, ignore_index=255, reduction="none")
    batch = loss.shape[0]  # HardNegativeMining.forward
    loss = loss.reshape(batch, -1)
    expected = loss.topk(dim=1, k=int(0.25 * loss.shape[1]))[0].mean()
    assert torch.allclose(ohem_feddrive(logits_NCHW, labels_NHW, 0.25), expected)


def test_fedseg_takes_all_that_are_not_sure_by_hand() -> None:
    logits_NCHW = images_of([0.5, 0.25, 0.71, 0.9])  # -ln 0.7 is between the second and third
    value = ohem_fedseg(logits_NCHW, torch.zeros(1, 1, 4, dtype=torch.long))
    assert value.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_fedseg_takes_a_quarter_at_least_by_hand() -> None:
    logits_NCHW = images_of([0.8, 0.9, 0.95, 0.99, 0.99, 0.99, 0.99, 0.99, 0.1])
    labels_NHW = torch.tensor([[[0] * 8 + [IGNORE]]])
    value = ohem_fedseg(logits_NCHW, labels_NHW)  # two of eight valid pixels; all are sure
    assert value.item() == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2)


@pytest.mark.parametrize("ignored", [0.0, 0.5])
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 50.0])
def test_fedseg_is_its_published_code(ignored: float, sharpness: float) -> None:
    logits_NCHW, labels_NHW = random_batch(4, ignored)
    logits_NCHW = sharpness * logits_NCHW
    n_min = int(labels_NHW[labels_NHW != 255].numel() * 0.25)  # OhemCELoss.forward
    loss = functional.cross_entropy(
        logits_NCHW, labels_NHW, ignore_index=255, reduction="none"
    ).view(-1)
    loss_hard = loss[loss > -torch.log(torch.tensor(0.7))]
    if loss_hard.numel() < n_min:
        loss_hard, _ = loss.topk(n_min)
    assert torch.allclose(ohem_fedseg(logits_NCHW, labels_NHW), torch.mean(loss_hard))


def test_an_experiment_names_them() -> None:
    logits_NCHW, labels_NHW = random_batch(5, 0.3)
    made = build_loss(TrainingConfig(loss="ohem_feddrive", ohem_fraction=0.1))
    assert torch.equal(made(logits_NCHW, labels_NHW), ohem_feddrive(logits_NCHW, labels_NHW, 0.1))
    made = build_loss(TrainingConfig(loss="ohem_fedseg"))
    assert torch.equal(made(logits_NCHW, labels_NHW), ohem_fedseg(logits_NCHW, labels_NHW))
