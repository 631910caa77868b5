"""Noise on a style: its scale by hand, drawn from the system, within what a style can be."""

from __future__ import annotations

import math
import os
from statistics import NormalDist

import numpy as np
import pytest
from tests.data.styles.pictures import picture

from fleetseg.config import StyleConfig
from fleetseg.data.styles import KINDS, measured, noise_std, noised

SIZE = (36, 48)
LAB = StyleConfig(kind="lab", noise=1.0)
FDA = StyleConfig(kind="fda", noise=0.5)
SPAN = {
    "lab": math.sqrt(100**2 + 60**2 + 60**2 + 50**2 + 30**2 + 30**2),
    "fda": math.sqrt(3 * (255**2 + 4 * 64**2)),  # of 27 numbers 12 are copies
}


@pytest.fixture
def _same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's random bytes, the same in each run of a test."""
    generator = np.random.Generator(np.random.Philox(0))
    monkeypatch.setattr(os, "urandom", generator.bytes)


def test_the_scale_by_hand() -> None:
    assert noise_std(LAB, (2, 3), 10) == pytest.approx(SPAN["lab"] / 10)
    assert noise_std(FDA, (3, 3, 3), 20) == pytest.approx(0.5 * SPAN["fda"] / 20)
    few = LAB.model_copy(update={"images": 4})  # no more are measured
    assert noise_std(few, (2, 3), 10) == pytest.approx(SPAN["lab"] / 4)


@pytest.mark.parametrize("config", [LAB, FDA], ids=["lab", "fda"])
def test_no_image_moves_a_style_by_more_than_the_scale_is_made_for(config: StyleConfig) -> None:
    black, white = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    stripes = white.copy()
    stripes[:, 24:] = (0, 0, 255)
    label = np.zeros(SIZE, np.uint8)
    rest = [(picture(k, *SIZE), label) for k in range(4)]
    seen = [
        measured([*rest, (one, label)], config, SIZE, clipped=True)
        for one in (black, white, stripes, picture(9, *SIZE))
    ]
    kind = KINDS[config.kind]
    once = np.ones(seen[0].shape[1:], bool)
    if kind.mirrored:
        once.reshape(3, -1)[:, :4] = False
    moves = [np.linalg.norm((a - b)[0][once]) for a in seen for b in seen]
    assert 0 < max(moves) <= SPAN[config.kind] / 5


@pytest.mark.usefixtures("_same_noise")
def test_noise_has_that_scale_and_is_new_each_time() -> None:
    style = np.array([[[50, 0, 0], [20, 15, 15]]], np.float32)
    config = LAB.model_copy(update={"noise": 0.1, "images": 4096})
    drawn = np.stack([noised(style, config, 100)[0] - style[0] for _ in range(400)])
    assert drawn.std() == pytest.approx(0.1 * SPAN["lab"] / 100, rel=0.06)
    assert abs(drawn.mean()) < 0.02
    assert len(np.unique(drawn[:, 0, 0])) > 380  # float32 has some twice


def test_noise_comes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr(os, "urandom", urandom)
    style = np.zeros((1, 2, 3), np.float32)
    assert (noised(style, LAB, 5) == noised(style, LAB, 5)).all()
    assert asked == [16, 16]


@pytest.mark.usefixtures("_same_noise")
@pytest.mark.parametrize("config", [LAB, FDA], ids=["lab", "fda"])
def test_a_noised_style_is_one_that_can_be(config: StyleConfig) -> None:
    label = np.zeros(SIZE, np.uint8)
    style = measured([(picture(0, *SIZE), label)], config, SIZE, clipped=True)
    low, high = KINDS[config.kind].limits(style.shape[1:])
    for _ in range(20):
        with_noise = noised(style, config, 1)
        assert with_noise.dtype == np.float32
        assert (low <= with_noise).all()
        assert (with_noise <= high).all()
        if config.kind == "fda":
            assert with_noise == pytest.approx(with_noise[:, :, ::-1, ::-1], abs=1e-3)


def test_what_the_documents_say_of_epsilon() -> None:
    """The curve of Balle and Wang, at delta = 1e-5; and the classical bound is above it."""
    for noise, epsilon in ((1.0, 4.38), (2.0, 1.99), (4.0, 0.93)):
        phi = NormalDist().cdf
        below = phi(1 / (2 * noise) - epsilon * noise)
        delta = below - math.exp(epsilon) * phi(-1 / (2 * noise) - epsilon * noise)
        assert delta == pytest.approx(1e-5, rel=0.1)
        assert epsilon < math.sqrt(2 * math.log(1.25e5)) / noise
