"""Travel: how far local SGD steps carry a gradient; a change divided by it is a gradient."""

from __future__ import annotations

from fleetseg.config import TrainingConfig
from fleetseg.learning.schedules import lr_factor


class Travel:
    """How far SGD steps move down a parameter whose gradient is always 1.

    With momentum, v <- momentum v + 1 and the parameter moves by lr v; Nesterov's by
    lr (1 + momentum v). For K equal steps without momentum: K lr.

    A `pull` towards the received model, as in FedProx, is a part of each gradient that grows with
    the distance: then the travel counts how much of a gradient of the loss remains.
    """

    def __init__(self, training: TrainingConfig, pull: float = 0.0) -> None:
        self.total = 0.0
        self._momentum = training.momentum if training.optimiser == "sgd" else 0.0
        self._nesterov, self._velocity = training.nesterov, 0.0
        self._pull = pull

    def step(self, lr: float) -> None:
        """Add one step."""
        gradient = 1 - self._pull * self.total
        self._velocity = self._momentum * self._velocity + gradient
        ahead = gradient + self._momentum * self._velocity
        self.total += lr * (ahead if self._nesterov else self._velocity)


def lr_at(training: TrainingConfig, round_: int, progress: float, total_rounds: int) -> float:
    """Return the learning rate of the body at this progress of a round; see `schedules`."""
    return training.lr * lr_factor(
        training.schedule, round_, progress, total_rounds, training.warmup_rounds
    )


def travel_of(
    num_steps: int, training: TrainingConfig, round_: int, total_rounds: int, pull: float = 0.0
) -> float:
    """Return the travel of a round of `num_steps` steps, spread evenly over it.

    With constant learning rate and no pull, divided by lr, it is FedNova's
    a = (K - m (1 - m^K) / (1 - m)) / (1 - m), where m is the momentum.
    """
    travel = Travel(training, pull)
    for step in range(num_steps):
        travel.step(lr_at(training, round_, step / num_steps, total_rounds))
    return travel.total
