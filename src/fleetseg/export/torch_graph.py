"""Programs of torch.export: the traced graph with its weights, for torch without fleetseg."""

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
"""Of the extra file in the archive that says what `describe` says in ONNX."""


def write_torch_export(
    graph: ExportedGraph, size_hw: tuple[int, int], path: Path, facts: Mapping[str, str]
) -> None:
    """Write a graph with its weights, with a batch of any size.

    Raises:
        ModelError: the network cannot be traced.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own layers; parity is what counts
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
    """Open a program that `write_torch_export` wrote here: reading one trusts who wrote it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()
    return _runner(module)


def eager_runner(graph: ExportedGraph) -> Runner:
    """Return the graph itself, layer by layer in torch: what exported forms are held against."""
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
