"""SAM and ASAM: step along the gradient at the nearby point of highest loss.

Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412, Algorithm 1 and equation 2:

    y <- y - lr grad L(y + e),    e = rho g / |g|,    g = grad L(y).

Kwon, Kim, Park, Choi 2021, arXiv 2102.11600, Algorithm 1: with T = |y| + eta for each weight,

    e = rho T^2 g / |T g|,

so that scaling one layer up and the next down changes nothing. T is 1 for biases, as in the paper,
and for parameters of norm layers, half of which the authors' code includes since it selects by the
name "weight".

Norms are of all tensors as one vector. L excludes weight decay, which the optimiser applies at y.
In a federation: Caldarola, Caputo, Ciccone 2022, arXiv 2203.11834; Qu et al. 2022, 2206.02618.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import Objective
from fleetseg.learning.parameters import Trainables, weight_ids

_TINY = 1e-12  # no gradient, no perturbation; the authors' code has it too


@dataclass(frozen=True)
class _Memo:
    rho: float
    eta: float = 0.0
    scaled: Collection[int] = ()  # ids of the parameters to which T applies


@torch.no_grad()
def climb(parameters: Sequence[Tensor], rho: float) -> None:
    """Move parameters by `rho` along their gradients, in place; skip those without a gradient."""
    found = [(p, p.grad) for p in parameters if p.grad is not None]
    factor = rho / (_norm([gradient for _, gradient in found]) + _TINY)
    for parameter, gradient in found:
        parameter.add_(gradient * factor)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    lengths = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(lengths))
    return norm


def _begin_sam(inputs: LocalInputs, shared: Trainables) -> _Memo:
    return _Memo(inputs.training.sam.rho)


def _perturb_sam(memo: _Memo, shared: Trainables) -> None:
    climb(shared.all_trained(), memo.rho)


def _begin_asam(inputs: LocalInputs, shared: Trainables) -> _Memo:
    settings, network = inputs.training.asam, shared.network
    assert network is not None  # needed to distinguish weights from norm parameters
    return _Memo(settings.rho, settings.eta, weight_ids(network))


@torch.no_grad()
def _perturb_asam(memo: _Memo, shared: Trainables) -> None:
    """Climb in the coordinates y / T, where the gradient is T g and a step e corresponds to T e."""
    found = [(p, p.grad, _scale(p, memo)) for p in shared.all_trained() if p.grad is not None]
    factor = memo.rho / (_norm([scale * gradient for _, gradient, scale in found]) + _TINY)
    for parameter, gradient, scale in found:
        parameter.add_(scale * scale * gradient * factor)


def _scale(parameter: Tensor, memo: _Memo) -> Tensor:
    if id(parameter) in memo.scaled:
        return parameter.abs() + memo.eta
    return torch.ones_like(parameter)


SAM = Objective(begin=_begin_sam, perturb=_perturb_sam)
ASAM = Objective(begin=_begin_asam, perturb=_perturb_asam)
