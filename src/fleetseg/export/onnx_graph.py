"""ONNX files: written from a graph, described by metadata, run with onnxruntime.

Both packages belong to the extra `onnx` and are imported where they are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fleetseg.errors import MissingExtra, ModelError
from fleetseg.export.graph import INPUT, OUTPUT, ExportedGraph, example_input

Logits_NCHW = npt.NDArray[np.float32]
Runner = Callable[[npt.NDArray[np.uint8]], Logits_NCHW]
"""Images, uint8 (N, H, W, 3), to logits: one form of a model."""


def require_onnx() -> None:
    """Raise MissingExtra if the packages are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "onnx", "--format onnx") from None


def write_onnx(graph: ExportedGraph, size_hw: tuple[int, int], path: Path) -> None:
    """Write a graph as one file, with dynamic batch size.

    Raises:
        ModelError: a layer of the network has no ONNX equivalent.
    """
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about torch's own layers; parity is checked instead
            program = torch.onnx.export(
                graph,
                (example_input(size_hw),),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                external_data=False,
            )
            assert program is not None
            program.save(path, external_data=False)
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the network cannot be written as ONNX ({first})", where=graph.segmenter.name
        ) from error


def describe(path: Path, facts: Mapping[str, str]) -> None:
    """Replace the metadata of an ONNX file."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, path)


def onnx_runner(path: Path, threads: int = 0) -> Runner:
    """Open an ONNX file on the CPU; `threads` = 0 uses all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    session: Any = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def run(images_NHWC: npt.NDArray[np.uint8]) -> Logits_NCHW:
        logits_NCHW: Logits_NCHW = session.run([OUTPUT], {INPUT: images_NHWC})[0]
        return logits_NCHW

    return run
