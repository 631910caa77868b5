"""Layouts: kinds by module type, flat vectors, digests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.federation.tensors import (
    Layout,
    ModelState,
    ModelTensors,
    layout_of,
    load_state,
    read_state,
)


class Norms(nn.Module):
    """Every kind of norm layer, with and without affine terms and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.BatchNorm2d(4)
        self.conv = nn.BatchNorm1d(3, affine=False)
        self.bare = nn.BatchNorm2d(2, track_running_stats=False)
        self.groups = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.instance_bare = nn.InstanceNorm2d(4)
        self.layer = nn.LayerNorm(4)
        self.register_buffer("mean", torch.tensor([0.4, 0.5]))
        self.register_buffer("table", torch.tensor([[-3, 1], [2, 7]]))
        self.register_buffer("scratch", torch.zeros(9), persistent=False)


def kinds(layout: Layout) -> dict[str, str]:
    return {key: entry.kind for key, entry in layout.by_key.items()}


def test_kind_comes_from_the_module_and_not_from_its_name(layout: Layout) -> None:
    assert kinds(layout) == {
        "conv.weight": "trainable",
        "conv.bias": "trainable",
        "foo.weight": "trainable",
        "foo.bias": "trainable",
        "bn1.weight": "trainable",
        "bn1.bias": "trainable",
        "foo.running_mean": "statistic",
        "foo.running_var": "statistic",
        "foo.num_batches_tracked": "counter",
    }
    assert [key for key, entry in layout.by_key.items() if entry.is_variance] == ["foo.running_var"]


def test_buffers_named_like_statistics_of_other_modules_are_no_variances() -> None:
    class Odd(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("running_var", -torch.ones(2))

    entry = layout_of(Odd()).by_key["running_var"]
    assert entry.kind == "statistic"
    assert not entry.is_variance


def test_every_norm_layer() -> None:
    found = kinds(layout_of(Norms()))
    of = {
        name: sorted(
            k.partition(".")[2] + ":" + v[0] for k, v in found.items() if k.startswith(name)
        )
        for name in ("head.", "conv.", "bare.", "groups.", "instance.", "instance_bare.", "layer.")
    }
    full = ["bias:t", "num_batches_tracked:c", "running_mean:s", "running_var:s", "weight:t"]
    assert of["head."] == of["instance."] == full
    assert of["conv."] == ["num_batches_tracked:c", "running_mean:s", "running_var:s"]
    assert of["bare."] == of["groups."] == of["layer."] == ["bias:t", "weight:t"]
    assert of["instance_bare."] == []
    assert found["mean"] == "statistic"
    assert found["table"] == "counter"
    assert "scratch" not in found


@pytest.mark.parametrize(("affine", "per_layer"), [(True, 5), (False, 3)])
def test_number_of_local_keys_is_3_or_5_for_each_batch_norm(affine: bool, per_layer: int) -> None:
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=affine)) for _ in range(7)]
    net = nn.Sequential(*blocks)
    norms = {n for n, m in net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    local = [k for k in layout_of(net).by_key if k.rpartition(".")[0] in norms]
    assert len(local) == per_layer * len(norms) == per_layer * 7


def test_trainable_values_come_first_in_state_dict_order(net: nn.Module, layout: Layout) -> None:
    order = [key for key in net.state_dict() if key in layout.by_key]
    for kind in ("trainable", "statistic", "counter"):
        of_kind = [e.key for e in layout.by_key.values() if e.kind == kind]
        assert of_kind == [key for key in order if layout.by_key[key].kind == kind]
    assert layout.num_trainable == sum(p.numel() for p in net.parameters())
    ends = [0, *(e.stop for e in layout.floats)]
    assert [e.start for e in layout.floats] == ends[:-1]
    assert ends[-1] == layout.num_floats
    assert [e.kind for e in layout.floats] == ["trainable"] * 6 + ["statistic"] * 2


@pytest.mark.parametrize("make", [Norms, lambda: nn.Sequential(nn.Conv2d(3, 2, 1))])
def test_round_trip(make: type[nn.Module]) -> None:
    with rng.torch_default(1):
        source, target = make(), make()
    with torch.no_grad():
        for index, tensor in enumerate(source.state_dict().values()):
            tensor.add_(index + 1)
    layout = layout_of(source)
    load_state(target, layout, read_state(source, layout))
    for key, tensor in source.state_dict().items():
        got = target.state_dict()[key]
        assert got.dtype == tensor.dtype
        assert torch.equal(got, tensor), key


def test_integers_stay_integers_beyond_what_a_float_can_count() -> None:
    source, target = nn.Sequential(nn.BatchNorm2d(1)), nn.Sequential(nn.BatchNorm2d(1))
    source[0].num_batches_tracked.fill_(2**53 + 1)
    layout = layout_of(source)
    state = read_state(source, layout)
    assert state.counters_K.dtype == torch.int64
    load_state(target, layout, state)
    assert int(target[0].num_batches_tracked) == 2**53 + 1
    assert target[0].num_batches_tracked.dtype == torch.int64


def test_read_state_copies(net: nn.Module, layout: Layout, base: ModelState) -> None:
    state = read_state(net, layout)
    state.values_F.fill_(7)
    assert torch.equal(read_state(net, layout).values_F, base.values_F)
    assert not state.values_F.requires_grad


def test_a_change_is_what_was_read_less_the_base_with_counters_as_they_stand(
    net: nn.Module, layout: Layout, base: ModelState
) -> None:
    net.to(memory_format=torch.channels_last)
    for tensor in (*net.parameters(), *net.buffers()):
        with torch.no_grad():
            tensor.add_(torch.ones_like(tensor))
    now, change = read_state(net, layout), layout.empty()
    ModelTensors(net, layout).read_change(change, base)
    assert torch.equal(change.values_F, now.values_F - base.values_F)
    assert change.values_F.any()
    assert torch.equal(change.counters_K, now.counters_K)


def test_views_share_memory_with_the_vectors(layout: Layout, base: ModelState) -> None:
    state = base.clone()
    views = layout.views(state)
    views["bn1.weight"].fill_(5)
    entry = layout.by_key["bn1.weight"]
    assert state.values_F[entry.start : entry.stop].tolist() == [5] * 6
    assert not torch.equal(base.values_F, state.values_F)
    assert views["foo.num_batches_tracked"].shape == ()


def test_digest_of_a_state_changes_with_any_bit(base: ModelState) -> None:
    digests = {base.digest(), base.clone().digest()}
    assert len(digests) == 1
    for index in range(base.values_F.numel()):
        other = base.clone()
        other.values_F.view(torch.int32)[index] ^= 1
        digests.add(other.digest())
    other = base.clone()
    other.counters_K[0] += 1
    digests.add(other.digest())
    assert len(digests) == base.values_F.numel() + 2


def test_digest_sees_the_sign_of_zero() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert (
        ModelState(torch.tensor([0.0]), none).digest()
        != ModelState(torch.tensor([-0.0]), none).digest()
    )


def test_digest_of_a_model_without_counters() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    assert len(read_state(net, layout_of(net)).digest()) == 64


def test_layout_digest_sees_keys_shapes_and_kinds() -> None:
    class Buffered(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(2))
            if kind == "parameter":
                self.b = nn.Parameter(torch.zeros(2))
            else:
                self.register_buffer("b", torch.zeros(2))

    digests = {
        layout_of(net).digest
        for net in (
            nn.Linear(2, 3),
            nn.Linear(3, 2),
            nn.Linear(2, 3, bias=False),
            nn.Sequential(nn.Linear(2, 3)),
            Buffered("parameter"),
            Buffered("buffer"),
        )
    }
    assert len(digests) == 6
    assert layout_of(nn.Linear(2, 3)).digest == layout_of(nn.Linear(2, 3)).digest


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_refused_with_the_cure(dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match=r"1\.weight: .* must be float32; got torch\..*float\(\)"):
        layout_of(nn.Sequential(nn.ReLU(), nn.Linear(2, 2).to(dtype)))


def test_a_half_precision_buffer_is_refused() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("scale", torch.ones(1, dtype=torch.float16))
    with pytest.raises(ModelError, match=r"scale: .* float32"):
        layout_of(net)


def test_what_is_no_real_tensor_is_refused() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("wave", torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(ModelError, match="wave: not a real"):
        layout_of(net)

    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    with pytest.raises(ModelError, match="_extra_state: not a real or integer tensor; got dict"):
        layout_of(Extra(2, 2))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="Sequential: the model has no parameters"):
        layout_of(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2, affine=False)))
