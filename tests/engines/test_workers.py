"""What a worker reads of the memory that it shares with the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from fleetseg.engines.workers import WorkerJob, _broadcast
from fleetseg.federation.references import TEACHER
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of


def test_behind_a_model_to_be_scored_lies_what_was_sent_before_it() -> None:
    """The last teacher, in one process; zeros, in one that was started anew."""
    exchange = Exchange.of(layout_of(nn.Linear(3, 2)), references=(TEACHER,))
    place = exchange.down.empty()
    place.values_F.copy_(torch.arange(16.0))
    runtime = SimpleNamespace(exchange=exchange)
    job = cast(WorkerJob, SimpleNamespace(common=place, alone=None, runtime=runtime))
    order: dict[str, Any] = {"round": 1, "common": True, "facts": {}, "counted": None}
    read = {
        task: _broadcast({**order, "task": task, "lineage": ""}, job).state.values_F.tolist()
        for task in ("train", "evaluate-personal")
    }
    assert read == {"train": [*range(16)], "evaluate-personal": [*range(8)]}
