"""What is exchanged and what stays: layouts that divide a model, and put it together again."""

from __future__ import annotations

import pickle  # the standard library's, as workers are handed these
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.errors import ConfigError, ModelError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.messages import Broadcast, Update
from fleetseg.federation.sharing import SHARING, Exchange, Policy
from fleetseg.federation.tensors import (
    Layout,
    ModelState,
    ModelTensors,
    Part,
    layout_of,
    load_state,
    read_state,
)
from fleetseg.federation.wire import encode_broadcast, encode_update, message_bytes
from fleetseg.models.build import build_model
from fleetseg.runs.choices import check_choices

PART = FederationConfig(sharing="part")


def share(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    monkeypatch.setitem(SHARING, "part", policy)


def numbered(layout: Layout, start: int = 0) -> ModelState:
    values_F = torch.arange(start, start + layout.num_floats, dtype=torch.float32)
    return ModelState(values_F, torch.arange(layout.num_counters) + start)


def test_all_is_sent_and_received_without_a_copy(layout: Layout, base: ModelState) -> None:
    exchange = Exchange.of(layout)
    assert exchange.shares_all
    assert exchange.first(base) is exchange.sent(base) is exchange.to_score(base) is base
    other = base.clone()
    assert exchange.received(base, other) is other
    assert exchange.server.digest == exchange.wire.digest == layout.digest


def test_norm_layers_stay_by_what_they_are_and_not_by_their_name(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this network the batch norm is called foo, and a linear layer bn1."""
    share(monkeypatch, lambda entry, settings: not entry.in_norm)
    exchange = Exchange.of(layout, PART)
    assert {e.key.partition(".")[0] for e in exchange.wire.floats} == {"conv", "bn1"}
    kept = [e.key for e in (*exchange.kept.floats, *exchange.kept.counters)]
    assert kept == [
        "foo.weight", "foo.bias", "foo.running_mean", "foo.running_var", "foo.num_batches_tracked",
    ]  # fmt: skip


class EveryNorm(nn.Module):
    """Every kind of norm layer, under names that say nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Conv2d(3, 4, 1)  # is none
        self.a = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.b = nn.SyncBatchNorm(4)
        self.c = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.d = nn.GroupNorm(2, 4)
        self.e = nn.LayerNorm(4)
        self.f = nn.BatchNorm2d(4, affine=False)
        self.bn = nn.Linear(4, 2)
        self.register_buffer("running_mean", torch.zeros(2))  # of no norm layer


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}
AFFINE = {f"{layer}.{name}" for layer in ("a.1", "b", "c", "d", "e") for name in ("weight", "bias")}


def kept_by(sharing: str, net: nn.Module) -> set[str]:
    return set(
        Exchange.of(layout_of(net), FederationConfig(sharing=sharing)).untrained(TrainingConfig())
    )


def test_silobn_keeps_statistics_and_fedbn_norm_layers_by_type() -> None:
    statistics = {f"{layer}.{name}" for layer in ("a.1", "b", "c", "f") for name in STATISTICS}
    assert kept_by("silobn", EveryNorm()) == statistics
    assert kept_by("fedbn", EveryNorm()) == statistics | AFFINE


@pytest.mark.parametrize(
    ("sharing", "norm"), [("silobn", nn.GroupNorm(2, 4)), ("fedbn", nn.Identity())]
)
def test_a_policy_that_would_keep_nothing_is_refused(sharing: str, norm: nn.Module) -> None:
    with pytest.raises(ModelError, match="nothing of this network stays"):
        kept_by(sharing, nn.Sequential(nn.Conv2d(3, 4, 1), norm))


SERVER_SET = {"evaluation": [{"kind": "synthetic", "split": "val"}]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"method": "silobn", "evaluation": {"norms": "running"}, "data": SERVER_SET},
            "'domain' or",
        ),
        (
            {"method": "silobn", "evaluation": {"norms": "adapted"}, "data": SERVER_SET},
            "'domain' or",
        ),
        ({"method": "fedbn", "evaluation": {"norms": "domain"}, "data": SERVER_SET}, "no model to"),
        ({"method": "silobn", "training": {"freeze_bn_after": 0.5}}, "start values for ever"),
        ({"method": "fedbn", "training": {"freeze_bn_after": 0.5}}, "start values for ever"),
    ],
)
def test_what_stays_is_missed_at_configuration(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_choices(make_experiment(fields))


def test_what_stays_and_is_not_missed() -> None:
    check_choices(make_experiment({"method": "silobn", "data": SERVER_SET}))
    check_choices(make_experiment({"method": "fedbn", "partition": {"holdout": 0.2}}))


def test_a_part_is_put_in_its_place_and_nothing_else_changes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, lambda entry, settings: entry.kind == "trainable" and not entry.in_norm)
    exchange = Exchange.of(layout, PART, extras=("control",))
    server = exchange.first(numbered(layout))
    assert server.values_F[layout.num_floats :].tolist() == [0.0] * layout.num_trainable
    before = server.digest()
    sent = exchange.sent(server)
    changed = ModelState(sent.values_F + 1000, sent.counters_K)
    after = exchange.received(server, changed)
    assert server.digest() == before
    moved = (after.values_F != server.values_F).nonzero().flatten().tolist()
    keys = [e.key for e in exchange.server.floats for _ in range(e.size)]
    assert {keys[k] for k in moved} == {
        f"{extra}{key}"
        for extra in ("", "control//")
        for key in ("conv.weight", "conv.bias", "bn1.weight", "bn1.bias")
    }
    assert exchange.sent(after).digest() == changed.digest()
    # What is scored is the model alone.
    scored = exchange.to_score(exchange.model_of(after))
    assert exchange.shared_of(scored).digest() == exchange.shared_of(changed).digest()
    assert scored.values_F[exchange.wire.spans["control"]].abs().max() == 0


def test_what_is_only_told_goes_down_and_not_up(layout: Layout) -> None:
    exchange = Exchange.of(layout, extras=("control",), told=("momentum",))
    num = layout.num_trainable
    assert [*exchange.wire.spans] == ["control", "momentum"]
    assert [*exchange.up.spans] == ["control"]
    assert exchange.up.num_floats == exchange.wire.num_floats - num == layout.num_floats + num
    sent = numbered(exchange.wire)
    assert exchange.up_of(sent).values_F.tolist() == sent.values_F[:-num].tolist()
    down, up = message_bytes(exchange.wire, exchange.up)
    assert down - up >= 4 * num
    assert Exchange.of(layout, extras=("control",)).up.num_floats == exchange.up.num_floats


def test_two_loaders_fill_a_model_from_both_parts(
    net: nn.Module, layout: Layout, base: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, lambda entry, settings: not entry.in_norm)
    exchange = Exchange.of(layout, PART)
    whole = numbered(layout, 7)
    shared, kept = exchange.shared.empty(), exchange.kept.empty()
    Part.of(layout, exchange.shared).take(whole, shared)
    Part.of(layout, exchange.kept).take(whole, kept)
    try:
        ModelTensors(net, exchange.shared).load(shared)
        ModelTensors(net, exchange.kept).load(kept)
        assert read_state(net, layout).digest() == whole.digest()
    finally:
        load_state(net, layout, base)


def test_nothing_that_learns_is_nothing_to_share(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, lambda entry, settings: entry.kind != "trainable")
    with pytest.raises(ModelError, match=r"federation\.sharing = 'part': nothing that learns"):
        Exchange.of(layout, PART)


def test_a_head_is_known_by_what_the_network_says() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    net.head_prefixes = ("1", "2.")
    assert [e.key for e in layout_of(net).floats if e.in_head] == [
        "1.weight", "1.bias", "2.weight", "2.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "heads"),
    [("fast_scnn_aux", {"classifier", "aux"}), ("bisenetv2", {"head", "aux"})],
)
def test_of_a_shared_body_no_message_has_anything_of_a_head(name: str, heads: set[str]) -> None:
    """Neither of the norm layers in it, nor of auxiliary heads."""
    model = build_model(name, 3)
    exchange = Exchange.of(layout_of(model), FederationConfig(sharing="body"), ["control"])
    kept = {key.split(".")[1] for key in exchange.kept.by_key}
    assert kept == heads
    names = {key.rpartition("//")[2].split(".")[1] for key in exchange.wire.by_key}
    assert names == {name for name, _ in model.net.named_children()} - heads
    zeros = exchange.wire.empty()
    zeros.values_F.zero_()  # else what was in the memory before is sent, which may be such names
    zeros.counters_K.zero_()
    messages = (
        encode_broadcast(Broadcast(1, zeros), exchange.wire),
        encode_update(Update(1, "car", zeros, 1, 1, 1, 1, 0.0), exchange.wire),
    )
    for message in messages:
        assert not any(f"net.{head}.".encode() in message for head in heads)
    apart = {part: exchange.learns_apart(phase_of(part)) for part in ("all", "body", "head")}
    assert apart == {"all": True, "body": False, "head": True}
    assert set(exchange.untrained(phase_of("head"))) == set(exchange.kept.by_key)
    assert exchange.untrained(phase_of("body")) == ()  # it is the start's, and so everybody's


def phase_of(part: str) -> TrainingConfig:
    return make_experiment({"training": {"phases": [{"learns": part}]}}).training


def test_a_shared_head_on_a_body_that_stands_costs_the_head_s_bytes() -> None:
    exchange = Exchange.of(layout_of(build_model("bisenetv2", 3)), FederationConfig(sharing="head"))
    assert {key.split(".")[1] for key in exchange.wire.by_key} == {"head", "aux"}
    assert not exchange.learns_apart(phase_of("head"))
    assert exchange.learns_apart(TrainingConfig())


def test_stages_are_shared_by_name_and_the_rest_stays() -> None:
    layout = layout_of(build_model("bisenetv2", 3))
    settings = FederationConfig(sharing="stages", stages=("detail", "net.semantic.0"))
    exchange = Exchange.of(layout, settings)
    shared = {key for key in layout.by_key if key.startswith(("net.detail.", "net.semantic.0."))}
    assert set(exchange.wire.by_key) == shared
    assert exchange.learns_apart(TrainingConfig())


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("detial", r"federation\.stages: the network has no stage 'detial'.*Did you mean 'detail'"),
        ("semantic.0.fus", "Did you mean 'semantic.0.fuse'"),
        ("det", "no stage 'det'"),  # half of a name is none
        (
            "",
            r"no stage ''; expected modules such as .*context, detail, head, semantic$",
        ),
    ],
)
def test_a_stage_that_the_network_has_not_is_refused(stage: str, said: str) -> None:
    settings = FederationConfig(sharing="stages", stages=("detail", stage))
    with pytest.raises(ConfigError, match=said):
        Exchange.of(layout_of(build_model("bisenetv2", 3)), settings)


@pytest.mark.parametrize("sharing", ["body", "stages"])
def test_a_policy_that_keeps_nothing_is_refused(layout: Layout, sharing: str) -> None:
    """A network that does not say what its head is would be shared whole, under another name."""
    settings = FederationConfig(sharing=sharing, stages=("conv", "foo", "bn1"))
    with pytest.raises(ModelError, match=r"nothing of this network stays .*head_prefixes"):
        Exchange.of(layout, settings)


@given(st.sets(st.integers(0, 5)), st.integers(0, 2))
def test_any_part_comes_out_as_it_went_in(chosen: set[int], num_extras: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    whole = layout_of(net).with_extras([f"extra-{k}" for k in range(num_extras)])
    keys = {e.key for k, e in enumerate((*whole.floats, *whole.counters)) if k % 6 in chosen}
    part = whole.only(lambda entry: entry.key in keys)
    values, taken, back = numbered(whole), part.empty(), numbered(whole, 10**6)
    Part.of(whole, part).take(values, taken)
    Part.of(whole, part).put(taken, back)
    for key, view in whole.views(back).items():
        expected = values if key in keys else numbered(whole, 10**6)
        assert torch.equal(view, whole.views(expected)[key])


def test_states_are_handed_to_another_process_as_bytes(base: ModelState) -> None:
    """torch would hand over an open file for each tensor."""
    again = pickle.loads(pickle.dumps(base))
    assert again.digest() == base.digest()
    again.values_F.add_(1)  # memory of its own, that may be written to
    empty = ModelState(torch.empty(0), torch.empty(0, dtype=torch.int64))
    assert pickle.loads(pickle.dumps(empty)).digest() == empty.digest()
