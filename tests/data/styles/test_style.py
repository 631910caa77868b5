"""What a vehicle's style is, and images in one: bytes, labels' shape, all kinds alike."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.styles.pictures import picture

from fleetseg.config import CfsiConfig, FdaConfig, StyleConfig
from fleetseg.data.styles import KINDS, Style, measured, shape_of, styled
from fleetseg.data.styles.lab import moments
from fleetseg.data.styles.spectrum import amplitudes

SIZE = (36, 48)
LABEL = np.zeros(SIZE, np.uint8)
each_kind = pytest.mark.parametrize("kind", KINDS)


def vehicle(count: int, **light: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(picture(k, *SIZE, **light), LABEL) for k in range(count)]


def config(kind: str, **fields: object) -> StyleConfig:
    return StyleConfig.model_validate({"kind": kind, "cfsi": {"share": 0.1}, **fields})


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (StyleConfig(kind="fda"), (3, 3, 3)),  # 27 numbers
        (StyleConfig(kind="fda", fda=FdaConfig(window=0)), (3, 1, 1)),
        (StyleConfig(kind="cfsi"), (3, 51, 103)),  # floor(0.05 * 512) = 25, floor(0.05 * 1024) = 51
        (StyleConfig(kind="cfsi", cfsi=CfsiConfig(share=0.001)), (3, 1, 3)),
        (StyleConfig(kind="lab"), (2, 3)),  # six numbers
    ],
)
def test_numbers_of_a_style(settings: StyleConfig, shape: tuple[int, ...]) -> None:
    assert shape_of(settings, (512, 1024)) == shape


@each_kind
def test_a_vehicle_s_style_is_the_mean_of_its_images_and_nothing_else(kind: str) -> None:
    train = vehicle(3)
    single = measured(train, config(kind, per="image"), SIZE)
    assert single.shape == (3, *shape_of(config(kind), SIZE))
    whole = measured(train, config(kind), SIZE)
    assert whole.dtype == np.float32
    assert whole.shape == (1, *shape_of(config(kind), SIZE))
    assert whole[0] == pytest.approx(single.mean(axis=0), abs=1e-4)


def test_each_image_s_numbers_are_those_of_its_kind() -> None:
    image = vehicle(1)[0][0]
    assert (measured(vehicle(1), config("lab"), SIZE)[0] == moments(image)).all()
    assert (measured(vehicle(1), config("fda"), SIZE)[0] == amplitudes(image, (1, 1))).all()
    assert (measured(vehicle(1), config("cfsi"), SIZE)[0] == amplitudes(image, (3, 4))).all()


def test_of_many_images_some_are_measured_evenly() -> None:
    train = vehicle(10)
    some = measured(train, config("lab", per="image", images=4), SIZE)
    assert (some == np.stack([moments(train[k][0]) for k in (0, 2, 5, 7)])).all()


@each_kind
@pytest.mark.parametrize("low", [0, 60, 200])
def test_one_s_own_style_is_the_identity_within_a_level(kind: str, low: int) -> None:
    image = picture(1, *SIZE, low, 255)
    style = Style(kind, measured([(image, LABEL)], config(kind), SIZE)[0])
    assert np.abs(styled(image, style).astype(int) - image).max() <= 1


@each_kind
def test_no_share_is_the_identity_and_all_of_it_is_the_target(kind: str) -> None:
    image, dark = picture(1, *SIZE), vehicle(4, low=5, high=60)
    target = measured(dark, config(kind), SIZE)[0]
    assert np.abs(styled(image, Style(kind, target, 0.0)).astype(int) - image).max() <= 1
    levels = [styled(image, Style(kind, target, share)).mean() for share in (0, 0.25, 0.5, 0.75, 1)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == pytest.approx(np.mean([i.mean() for i, _ in dark]), abs=6)


@each_kind
def test_what_is_too_bright_is_cut_and_does_not_wrap_around(kind: str) -> None:
    """FedDrive's CFSI turns 256 into 0: its clip is commented out, and |.| is no real part."""
    image, bright = picture(1, *SIZE, low=0, high=255), vehicle(3, low=230, high=255)
    shown = styled(image, Style(kind, measured(bright, config(kind), SIZE)[0]))
    assert shown.dtype == np.uint8
    assert shown.shape == image.shape
    lit = image.astype(int).sum(axis=2) > 500
    assert shown[lit].min() > 150  # what was bright is no black spot
    assert styled(image, Style("fda", np.full((3, 3, 3), 0, np.float32))).min() == 0


@each_kind
def test_the_image_that_came_is_not_written_to(kind: str) -> None:
    image = picture(1, *SIZE)
    image.setflags(write=False)
    before, target = image.copy(), measured(vehicle(2, low=0, high=50), config(kind), SIZE)[0]
    assert not np.array_equal(styled(image, Style(kind, target)), before)
    assert np.array_equal(image, before)


@each_kind
def test_limits_hold_for_any_image(kind: str) -> None:
    generator = np.random.Generator(np.random.Philox(0))
    images = [np.full((*SIZE, 3), colour, np.uint8) for colour in np.eye(3, dtype=np.uint8) * 255]
    spot = np.zeros((*SIZE, 3), np.uint8)
    spot[3, 5] = 255
    halves = np.zeros((*SIZE, 3), np.uint8)
    halves[:, 24:, 2], halves[:, :24, 1] = 255, 255
    images += [spot, halves, generator.integers(0, 2, (*SIZE, 3), dtype=np.uint8) * 255]
    low, high = KINDS[kind].limits(shape_of(config(kind), SIZE))
    for style in measured([(i, LABEL) for i in images], config(kind, per="image"), SIZE):
        assert (style >= low - 0.01).all()
        assert (style <= high + 0.01).all()
