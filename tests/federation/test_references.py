"""Teachers as the server makes them: by hand, over rounds, and beside what is exchanged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fleetseg.config import FederationConfig, SelfTrainingConfig
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.references import FIRST, TEACHER, References, advance_references
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, load_state, read_state
from fleetseg.federation.wire import decode_broadcast, encode_broadcast


def over_rounds(rounds: int, **settings: object) -> list[float]:
    """Return the teachers of rounds in which the model is 0, 1, 2, ..."""
    chosen = SelfTrainingConfig.model_validate(settings)
    held: References = {}
    teachers = []
    for round_ in range(1, rounds + 1):
        sent_F = torch.tensor([float(round_ - 1)])
        held = advance_references(held, (FIRST, TEACHER), sent_F, round_, chosen, rounds)
        assert held[FIRST].item() == 0
        teachers.append(held[TEACHER].item())
    return teachers


def test_a_teacher_of_every_so_many_rounds() -> None:
    assert over_rounds(7, teacher="round", every=3) == [0, 0, 0, 3, 3, 3, 6]


def test_an_exponential_average() -> None:
    assert over_rounds(4, teacher="ema", ema=0.5) == [0, 0.5, 1.25, 2.125]


def test_a_mean_of_models_past_a_share_of_the_rounds() -> None:
    """LADD's: refreshed before, then the mean of all models since."""
    assert over_rounds(6, teacher="swa", every=1, swa_start=0.5) == [0, 1, 2, 3, 3.5, 4]
    assert over_rounds(6, teacher="swa", every=2, swa_start=0.5) == [0, 0, 2, 2, 3.5, 3.5]


def small_net(seed: int) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.full_like(value, seed))
    return net


@pytest.mark.parametrize("sharing", ["all", "silobn"])
def test_they_cross_the_wire_whole_and_come_back_as_models(sharing: str) -> None:
    """With running statistics, which a teacher in eval mode goes by, where those are shared."""
    layout = layout_of(small_net(0))
    settings = FederationConfig(sharing=sharing)
    exchange = Exchange.of(layout, settings, ("control",), (), (FIRST, TEACHER))
    models = {
        name: read_state(small_net(k), exchange.shared) for k, name in ((2, FIRST), (3, TEACHER))
    }
    server = exchange.first(read_state(small_net(1), layout))
    sent = exchange.with_references(
        exchange.sent(server), {name: model.values_F for name, model in models.items()}
    )
    data = encode_broadcast(Broadcast(4, sent), exchange.down)
    arrived = decode_broadcast(data, exchange.down).state
    assert torch.equal(
        exchange.shared_of(arrived).values_F, read_state(small_net(1), exchange.shared).values_F
    )
    for seed, name in ((2, FIRST), (3, TEACHER)):
        filled = small_net(9)
        load_state(filled, exchange.shared, exchange.references_of(arrived)[name])
        wanted = small_net(seed).state_dict()
        for entry in exchange.shared.floats:
            assert torch.equal(filled.state_dict()[entry.key], wanted[entry.key])


def test_without_any_nothing_is_sent_beside_the_model() -> None:
    exchange = Exchange.of(layout_of(small_net(0)))
    sent = exchange.sent(read_state(small_net(1), exchange.model))
    assert exchange.down == exchange.wire
    assert exchange.with_references(sent, {}) is sent


def test_only_what_is_to_train_from_has_models_beside_it() -> None:
    """Nothing teaches where a model is scored; where a step is tried, the model itself does."""
    exchange = Exchange.of(layout_of(small_net(0)), references=(TEACHER,))
    model = read_state(small_net(1), exchange.model)
    assert exchange.to_score(model).values_F.numel() == exchange.sent_by("evaluate").num_floats
    assert exchange.references_of(exchange.to_score(model)) == {}
    tried = exchange.to_try(model)
    assert tried.values_F.numel() == exchange.sent_by("train").num_floats
    assert torch.equal(
        exchange.references_of(tried)[TEACHER].values_F, exchange.shared_of(tried).values_F
    )
