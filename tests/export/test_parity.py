"""How far two forms of a model are apart, and how far they may be."""

from __future__ import annotations

import numpy as np
import pytest
from tests.export.conftest import noise_images

from fleetseg.errors import ModelError
from fleetseg.export.onnx_graph import Runner
from fleetseg.export.parity import Parity, parity, require_agreement, require_parity


def shifted(by: float, pixels: int = 0) -> Runner:
    """Two classes at full size: class 1 where the red is above a half, in some pixels otherwise."""

    def run(images_NHWC: np.ndarray) -> np.ndarray:
        red = images_NHWC[..., 0].astype(np.float32) / 255 - 0.5
        logits = np.stack([np.zeros_like(red), red], axis=1)
        logits[:, :, 0, :pixels] = logits[:, ::-1, 0, :pixels]
        logits[:, 1] += by
        return logits

    return run


def test_differences_and_agreement_are_counted_over_all_images() -> None:
    images = noise_images(3, (8, 8))
    same = parity(shifted(0), shifted(0), images)
    assert (same.images, same.max_difference, same.agreement) == (3, 0.0, 1.0)
    apart = parity(shifted(0), shifted(0, pixels=4), images)
    assert apart.agreement == 1 - 4 / 64
    assert parity(shifted(0), shifted(0.25), images).max_difference == pytest.approx(0.25)


def test_only_rounding_passes() -> None:
    require_parity(Parity(8, 5e-6, 12.0, 1.0), "model.onnx")
    require_parity(Parity(8, 5e-3, 12.0, 0.9995), "model.onnx")
    for found in (Parity(8, 2e-2, 12.0, 1.0), Parity(8, 2e-3, 0.1, 1.0), Parity(8, 0, 1, 0.99)):
        with pytest.raises(ModelError, match=r"model\.onnx: .*does not compute.*Nothing was writ"):
            require_parity(found, "model.onnx")


def test_nan_is_no_agreement() -> None:
    with pytest.raises(ModelError, match="does not compute"):
        require_parity(parity(shifted(0), shifted(np.nan), noise_images(2, (8, 8))), "x")


def test_another_shape_is_refused() -> None:
    def small(images_NHWC: np.ndarray) -> np.ndarray:
        return shifted(0)(images_NHWC)[:, :, ::2]

    with pytest.raises(ModelError, match="a different shape"):
        parity(shifted(0), small, noise_images(2, (8, 8)))


def test_eight_bits_are_held_to_what_is_asked() -> None:
    found = Parity(8, 0.5, 12.0, 0.93)
    require_agreement(found, 0.9, "model_int8.onnx")
    with pytest.raises(ModelError, match=r"got agreement in 93\.00 % .* expected 95 % or more"):
        require_agreement(found, 0.95, "model_int8.onnx")
