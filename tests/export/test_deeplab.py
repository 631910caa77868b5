"""DeepLabV3 and DeepLabV3+ leave as ONNX and as a program, and compute what they do in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fleetseg.data.labels import CAMVID_11
from fleetseg.export.export import export_model
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.zoo import build_zoo
from fleetseg.rng import torch_default

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SIZE = (32, 48)


def adapted(name: str, paths: list[Path]) -> Segmenter:
    """A network whose norms have seen the images: else its logits would hardly depend on them."""
    with torch_default(0, purpose="deeplab"):
        model = build_zoo(name, CAMVID_11.num_classes)
        images = [np.array(Image.open(path).convert("RGB").resize(SIZE[::-1])) for path in paths]
        images_NCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            for _ in range(3):
                model.train()(images_NCHW)
    model.space, model.size_hw = CAMVID_11, SIZE
    return model.eval()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "format"),
    [("zoo:deeplabv3plus/resnet18", "onnx"), ("zoo:deeplabv3/resnet18", "torch-export")],
)
def test_what_leaves_computes_the_same(
    name: str, format: str, tmp_path: Path, real_data: Path
) -> None:
    paths = sorted((real_data / "camvid" / "val").glob("*.png"))[:3]
    done = export_model(adapted(name, paths), format, out=tmp_path / "out", images=paths)
    assert done.parity.images == 3
    assert done.parity.agreement > 0.999
    assert done.parity.max_difference < 1e-4 * done.parity.largest
    assert done.parity.largest > 0
