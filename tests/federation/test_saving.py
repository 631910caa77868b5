"""Tensors that share memory, or lie in another order, are saved as what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from fleetseg.federation.checkpoint import ServerState, load_newest, save_checkpoint
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.saving import separate
from fleetseg.federation.tensors import ModelState


def test_views_aliases_and_other_orders() -> None:
    vector = torch.arange(6.0)
    given = {
        "whole": vector,
        "same": vector,
        "part": vector[:3],
        "turned": vector.view(2, 3).T,
        "none": vector[:0],
        "none too": torch.empty(0),
    }
    read = safetensors.torch.load(safetensors.torch.save(separate(given)))
    assert {name: t.tolist() for name, t in read.items()} == {
        name: t.tolist() for name, t in given.items()
    }


def test_what_needs_no_copy_gets_none() -> None:
    tensor = torch.ones(3)
    assert separate({"a": tensor})["a"] is tensor


def test_a_way_to_publish_may_return_the_model_s_own_vector(tmp_path: Path) -> None:
    """The natural first step of an average."""
    model = ModelState(torch.arange(4.0), torch.zeros(1, dtype=torch.int64))
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    state = ServerState(1, model, facts={"f": turned}, published={"ema": model.values_F})
    save_checkpoint(tmp_path, state, {"round": 1}, experiment="e", layout="l")
    read, _, damaged = load_newest(tmp_path, experiment="e", layout="l")
    assert not damaged
    assert torch.equal(read.published["ema"], model.values_F)
    assert np.array_equal(read.facts["f"], turned)


def test_a_client_may_keep_a_view_or_nothing(tmp_path: Path) -> None:
    store, vector = ClientStateStore(tmp_path), torch.arange(6.0)
    store.save("car", 1, {"h": vector, "head": vector[:3]})
    assert store.load("car", 2)["head"].tolist() == [0, 1, 2]
    store.save("car", 2, {})
    assert store.load("car", 3) == {}
