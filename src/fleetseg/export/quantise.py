"""Static 8-bit quantisation: weights per channel, activations by ranges on calibration images.

Source: onnxruntime.quantization, whose QDQ format stores ranges in the graph, so that any runtime
can read them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC
from fleetseg.export.graph import INPUT

# fmt: off
OPERATIONS = (
    "Conv", "MatMul", "Gemm", "Add", "Mul", "Concat", "Relu", "Clip", "Sigmoid", "Resize",
    "MaxPool", "AveragePool", "GlobalAveragePool",
)
# fmt: on
"""Operations done in integers; the normalisation of the input is not among them."""


def quantise(source: Path, target: Path, images: Sequence[Image_HWC], scratch: Path) -> None:
    """Write an 8-bit ONNX file, calibrated on images of its working size.

    Weights use 7 of their 8 bits: sums of 8-bit products overflow with AVX2 and with AVX-512
    without VNNI, and a vehicle's processor may be one of those. The last layer stays in floats: if
    logits have a wide range, close classes would fall on the same quantisation step.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = scratch / "prepared.onnx"
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            _reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=list(OPERATIONS),
            nodes_to_exclude=last_layers(prepared),
        )
    prepared.unlink()


def last_layers(path: Path) -> list[str]:
    """Return the names of nodes from the last convolution onwards, on each path to the output."""
    import onnx

    graph = onnx.load(path).graph
    made_by = {name: node for node in graph.node for name in node.output}
    left, names = [value.name for value in graph.output], []
    while left:
        node = made_by.get(left.pop())
        if node is None or node.name in names:
            continue
        names.append(node.name)
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            left += node.input
    return names


def _reader(images: Sequence[Image_HWC]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out the images one by one."""

        def __init__(self) -> None:
            self.left: Iterator[dict[str, npt.NDArray[np.uint8]]] = (
                {INPUT: np.ascontiguousarray(image_HWC)[None]} for image_HWC in images
            )

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            """Return the next image as a batch; None at the end."""
            return next(self.left, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the package's advice on preparing a model, which is already followed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
