"""torch.export programs: the traced graph with its weights, for torch without fleetseg."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fleetseg.errors import ModelError
from fleetseg.export.graph import ExportedGraph, example_input
from fleetseg.export.onnx_graph import Logits_NCHW, Runner

DESCRIPTION = "fleetseg.json"
"""Name of the extra file in the archive with the metadata that `describe` writes in ONNX."""


def write_torch_export(
    graph: ExportedGraph, size_hw: tuple[int, int], path: Path, facts: Mapping[str, str]
) -> None:
    """Write a graph with its weights and dynamic batch size.

    Raises:
        ModelError: the network cannot be traced.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about torch's own layers; parity is checked instead
            batch = torch.export.Dim("batch")
            program = torch.export.export(
                graph, (example_input(size_hw),), dynamic_shapes=({0: batch},), strict=False
            )
            torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(dict(facts))})
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the network cannot be traced ({first})", where=graph.segmenter.name
        ) from error


def torch_runner(path: Path) -> Runner:
    """Open a program written by `write_torch_export` here; only read programs you trust."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()
    return _runner(module)


def eager_runner(graph: ExportedGraph) -> Runner:
    """Return the graph itself, run eagerly in torch: the reference for exported forms."""
    return _runner(graph)


def _runner(module: torch.nn.Module) -> Runner:
    def run(images_NHWC: npt.NDArray[np.uint8]) -> Logits_NCHW:
        with torch.inference_mode():
            logits: torch.Tensor = module(
                torch.from_numpy(np.require(images_NHWC, requirements="W"))
            )
        result: Logits_NCHW = logits.numpy()
        return result

    return run
