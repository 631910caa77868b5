"""Sums of what batch norms see: exact in any order, and torch's own where torch has them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fleetseg.errors import DataError
from fleetseg.models.layers import SafeBatchNorm2d
from fleetseg.models.norm_statistics import (
    ExactSum,
    NormSumming,
    NormSums,
    gather,
    put_statistics,
    statistic_keys,
    statistics_of,
)
from fleetseg.rng import generator, torch_default, torch_generator


def net() -> nn.Module:
    with torch_default(0, purpose="norms"):
        made = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Sequential(nn.Conv2d(4, 5, 3), SafeBatchNorm2d(5)), nn.Dropout(0.5),
        )  # fmt: skip
    made[1].running_mean += 3
    return made.eval()


def images(count: int = 12, size: int = 9) -> Tensor:
    drawn = torch.rand(count, 3, size, size, generator=torch_generator(0, 0, "", "images"))
    return drawn * torch.linspace(0.2, 3, count).view(-1, 1, 1, 1)  # no two alike


def sums(model: nn.Module, batches: list[Tensor], *, lone: bool = False) -> NormSums:
    with torch.no_grad():
        return gather(model, [lambda x=x: model(x) for x in batches], lone=lone)


def test_a_sum_has_the_same_bits_in_any_order() -> None:
    draw = generator(0, purpose="sums")
    parts = draw.normal(size=(50, 7)) * 10.0 ** draw.integers(-6, 13, (50, 1))
    totals = set()
    for _ in range(5):
        total = ExactSum(7)
        for part in draw.permutation(parts):
            total.add(part)
        totals.add(total.total.tobytes())
    assert len(totals) == 1
    assert np.allclose(total.total, parts.sum(0), rtol=1e-12, atol=1e-10)
    assert len({draw.permutation(parts).sum(0).tobytes() for _ in range(5)}) > 1  # floats do not


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_stays_none(value: float) -> None:
    """An integer would make one of it."""
    total = ExactSum(2)
    for part in ([1.0, value], [1.5, 2.0]):
        total.add(np.array(part))
    assert total.total[0] == 2.5
    assert np.isnan(total.total[1])


def test_by_hand() -> None:
    """Two batches of one channel: 1, 2, 3 and 5, 9. Mean 4, variance 40 / 4."""
    model = nn.Sequential(nn.BatchNorm2d(1)).eval()
    batches = [torch.tensor(v).view(-1, 1, 1, 1) for v in ([1.0, 2.0, 3.0], [5.0, 9.0])]
    found = sums(model, batches)
    assert found.counts_L.tolist() == [5]
    assert found.sums_C.tolist() == pytest.approx([20.0])
    assert found.squares_C.tolist() == pytest.approx([120.0])
    (mean, var) = statistics_of(model, found)["0"]
    assert (mean.item(), var.item()) == (pytest.approx(4.0), pytest.approx(10.0))


def test_one_batch_is_torch_s_update_bn() -> None:
    ours, theirs = net(), net()
    theirs[4].p = 0.0  # update_bn trains: dropout is on, though no norm comes after it
    put_statistics(ours, statistics_of(ours, sums(ours, [images()])))
    update_bn([images()], theirs)
    for layer in ("1.running_mean", "1.running_var", "3.1.running_mean", "3.1.running_var"):
        torch.testing.assert_close(ours.state_dict()[layer], theirs.state_dict()[layer])


def test_of_several_equal_batches_update_bn_leaves_out_what_differs_between_them() -> None:
    """Means agree in every layer; torch's variance is the mean of those within batches."""
    ours, theirs = net(), net()
    batches = list(images().split(4))
    made = statistics_of(ours, sums(ours, batches))
    update_bn(batches, theirs)
    for number, layer in enumerate(("1", "3.1")):
        state = theirs.state_dict()
        mean, var = made[layer]
        torch.testing.assert_close(mean, state[f"{layer}.running_mean"])
        of_batches = [statistics_of(ours, sums(ours, [x]))[layer][0] for x in batches]
        between = torch.stack(of_batches).double().var(0, correction=0)
        count = int(sums(ours, batches).counts_L[number])
        within = state[f"{layer}.running_var"].double() * (count // 3 - 1) / (count // 3)
        torch.testing.assert_close(var.double(), (within + between) * count / (count - 1))
        assert (between > 1e-5).all()


def test_of_a_split_they_are_those_of_the_whole_and_of_any_batches() -> None:
    """The first norm layer sees the same whatever the batches: torch's variance of all values."""
    model, whole = net(), images()
    with torch.no_grad():
        features = model[0](whole).permute(1, 0, 2, 3).flatten(1).double()
    for parts in (whole.split(12), whole.split(4), whole.split([1, 5, 6])):
        mean, var = statistics_of(model, sums(model, list(parts)))["1"]
        torch.testing.assert_close(mean.double(), features.mean(1))
        torch.testing.assert_close(var.double(), features.var(1))


def test_neither_the_order_of_batches_nor_that_of_clients_changes_a_bit() -> None:
    model, batches = net(), list(images().split(3))
    forth, back = sums(model, batches), sums(model, batches[::-1])
    clients = [sums(model, batches[:1]), sums(model, batches[1:3]), sums(model, batches[3:])]
    found = [forth, back]
    for order in ((0, 1, 2), (2, 0, 1)):
        total = NormSumming(2, 9)
        for client in order:
            total.add(clients[client])
        found.append(total.total)
    assert len({(f.counts_L.tobytes(), f.sums_C.tobytes()) for f in found}) == 1
    assert len({f.squares_C.tobytes() for f in found}) == 1


def test_the_model_is_left_as_it_was_even_by_an_error() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    sums(model, [images()])
    with pytest.raises(DataError, match="one value per channel"):
        sums(model, [images(), images(1, size=7)])  # 3x3 features, and then 1x1
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_lone_value_is_normalised_with_what_is_there_as_in_training() -> None:
    model = net()
    found = sums(model, [images(1, size=7)], lone=True)
    assert found.counts_L.tolist() == [9, 1]
    assert set(statistics_of(model, found)) == {"1"}  # the other keeps its own


def test_a_layer_that_only_trains_keeps_its_statistics() -> None:
    class WithAux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.aux(self.main(x)) if self.training else self.main(x)

    model = WithAux().eval()
    found = sums(model, [images()])
    assert found.counts_L.tolist() == [12 * 81, 0]
    assert set(statistics_of(model, found)) == {"main"}


def test_a_layer_that_is_used_twice_has_the_statistics_of_both_uses() -> None:
    norm = nn.BatchNorm2d(3)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(5 * x + 1)

    model = Twice().eval()
    both = torch.cat([images(), 5 * images() + 1]).permute(1, 0, 2, 3).flatten(1)
    mean, var = statistics_of(model, sums(model, list(images().split(4))))["norm"]
    torch.testing.assert_close(mean, both.mean(1))
    torch.testing.assert_close(var, both.var(1))


def test_keys_are_those_of_batch_norms_by_type() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.SyncBatchNorm(2), "bn": nn.Linear(2, 2), "a": nn.GroupNorm(1, 2),
            "b": nn.BatchNorm2d(2, track_running_stats=False),
            "c": nn.InstanceNorm2d(2, track_running_stats=True),
        }
    )  # fmt: skip
    assert statistic_keys(model) == {
        "conv.running_mean", "conv.running_var", "conv.num_batches_tracked",
    }  # fmt: skip
