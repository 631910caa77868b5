"""A fleet of quadratics, f_i(y) = a_i / 2 (y - b_i)^2: where local steps go wrong, by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.server_optim import SERVER_OPTIMISERS, Slots
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES, LocalCost
from fleetseg.learning.parameters import Trainables
from fleetseg.learning.travel import Travel

CURVES, CENTRES = (1.0, 4.0, 0.5, 2.0), (-1.0, 1.0, 3.0, 0.0)
OPTIMUM = sum(a * b for a, b in zip(CURVES, CENTRES, strict=True)) / sum(CURVES)


def training(objective: str, **fields: object) -> TrainingConfig:
    """Settings of a client that takes plain steps of 0.1."""
    given = {"objective": objective, "lr": 0.1, "momentum": 0.0, **fields}
    return make_experiment({"training": given}).training


@dataclass
class Fleet:
    """One client a quadratic, a server that takes the plain mean and its optimiser's step."""

    settings: TrainingConfig
    steps: Sequence[int] = (5, 5, 5, 5)
    server: str = "sgd"
    model: float = 0.0  # what clients are sent
    ends: dict[int, float] = field(default_factory=dict)  # each client's last model
    extras_T: dict[str, Tensor] = field(default_factory=dict)
    slots: Slots = field(default_factory=dict)
    kept: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        objective = OBJECTIVES[self.settings.objective]
        self.extras_T = {name: torch.zeros(1) for name in (*objective.extras, *objective.told)}
        self.slots = SERVER_OPTIMISERS[self.server].first(FederationConfig(), 1)

    @property
    def scored(self) -> float:
        """The model that counts."""
        scored = SERVER_OPTIMISERS[self.server].scored
        return scored(torch.tensor([self.model]), self.slots).item() if scored else self.model

    def round(self, cohort: Sequence[int] = (0, 1, 2, 3)) -> None:
        """Let a cohort train, and take the server's step."""
        objective = OBJECTIVES[self.settings.objective]
        results = [self._train(k) for k in cohort]
        share = len(cohort) / len(CURVES)
        mean_T = torch.tensor([sum(change for change, _ in results) / len(cohort)])
        step = SERVER_OPTIMISERS[self.server].step
        model_T = torch.tensor([self.model])
        new_T, self.slots = step(model_T, mean_T, self.slots, FederationConfig(), share)
        self.model = new_T.item()
        for name in self.extras_T:
            mean_T = torch.stack([extras[name] for _, extras in results]).mean(0)
            self.extras_T[name] = objective.server(self.extras_T[name], mean_T, share)

    def _train(self, k: int) -> tuple[float, Mapping[str, Tensor]]:
        objective, settings = OBJECTIVES[self.settings.objective], self.settings
        y = nn.Parameter(torch.tensor([self.model]))
        shared, travel = Trainables([y]), Travel(settings)
        inputs = LocalInputs(
            RoundContext(0, 1, 1, str(k)), settings, (1, 1), Hardware(torch.device("cpu"), "fp32"),
            extras_T=self.extras_T, state=self.kept.get(k, {}),
        )  # fmt: skip
        sgd = torch.optim.SGD(
            [y], lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov
        )
        memo = objective.begin(inputs, shared)
        for _ in range(self.steps[k]):
            self._gradient(y, k)
            if objective.perturb:
                before = y.detach().clone()
                objective.perturb(memo, shared)
                self._gradient(y, k)
                y.data.copy_(before)
            if objective.correct:
                objective.correct(memo, shared)
            sgd.step()
            travel.step(settings.lr)
        cost = LocalCost(self.steps[k], travel.total)
        self.kept[k], sent = objective.end(memo, shared, cost)
        change_T, extras = y.detach() - self.model, dict(sent)
        for name in objective.told:
            assert objective.tell is not None
            extras[name] = objective.tell(change_T, self.extras_T[name], travel.total)
        self.ends[k] = y.item()
        return y.item() - self.model, extras

    @staticmethod
    def _gradient(y: nn.Parameter, k: int) -> None:
        y.grad = CURVES[k] * (y.detach() - CENTRES[k])
