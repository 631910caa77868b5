"""The tasks of a client, the same in this process, in a worker and on a vehicle."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.messages import Broadcast, Reply
from fleetseg.federation.tasks.evaluate import (
    client_evaluate,
    client_evaluate_global,
    client_evaluate_personal,
)
from fleetseg.federation.tasks.norm_statistics import client_norm_statistics
from fleetseg.federation.tasks.train import client_update

__all__ = ["CLIENT_TASKS", "ClientTask"]

ClientTask = Callable[[Broadcast, Client, LocalRuntime], Reply]
CLIENT_TASKS: dict[str, ClientTask] = {
    "train": client_update,
    "evaluate": client_evaluate,
    "evaluate-global": client_evaluate_global,
    "evaluate-personal": client_evaluate_personal,
    "norm_statistics": client_norm_statistics,
}
"""All tasks that a server can ask a client to do, by name."""
