"""The bytes of an update: their number is known beforehand, and values come back as promised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fleetseg import rng
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.payload import Plan, decode, encode
from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout, ModelState

CODECS = ["fp32", "fp16", "bf16", "int8", "int4", "int8(channel)", "topk(10%)", "topk(10%)+int8",
          "topk(1%)+int4(channel)", "topk(30%)+fp16", "topk(0.001%)+bf16"]  # fmt: skip
each_codec = pytest.mark.parametrize("text", CODECS)


def plan_of(text: str, layout: Layout) -> Plan:
    codec = parse_codec(text)
    assert codec is not None
    return Plan.of(codec, layout)


@each_codec
def test_round_trip(text: str, layout: Layout, update: Callable[..., Update]) -> None:
    plan, change = plan_of(text, layout), update().change
    data = encode(change, plan, rng.generator(0))
    assert len(data) == plan.num_bytes
    back = decode(data, plan)
    num = layout.num_trainable
    given, got = change.values_F[:num].numpy(), back.values_F[:num].numpy()
    kept = np.argsort(-np.abs(given))[: plan.num_sent]
    assert np.count_nonzero(got) <= plan.num_sent
    # Steps of the coarsest format here: int4 takes sevenths of the largest value of its group.
    step = {"fp32": 0, "fp16": 2**-11, "bf16": 2**-8, "int8": 1 / 127, "int4": 1 / 7}
    error = np.abs(given - got)[kept].max()
    assert error <= np.abs(given).max() * step[plan.codec.format] * 1.001
    statistics = change.values_F[num:], back.values_F[num:]
    torch.testing.assert_close(*statistics, rtol=2**-7, atol=0)
    assert back.counters_K.tolist() == change.counters_K.tolist()


def test_fp32_is_exact(layout: Layout, update: Callable[..., Update]) -> None:
    plan, change = plan_of("fp32", layout), update().change
    assert decode(encode(change, plan, rng.generator(0)), plan).digest() == change.digest()


@pytest.mark.parametrize(("text", "groups"), [("int8", 5), ("int8(channel)", 8 + 4)])
def test_scales_are_per_tensor_or_output_channel(text: str, groups: int, layout: Layout) -> None:
    assert plan_of(text, layout).groups_G.size == groups


@each_codec
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_arrives_so(
    text: str, bad: float, layout: Layout, update: Callable[..., Update]
) -> None:
    plan, change = plan_of(text, layout), update().change
    for position in (0, layout.num_trainable - 1, layout.num_floats - 1):
        spoilt = change.clone()
        spoilt.values_F[position] = bad
        back = decode(encode(spoilt, plan, rng.generator(0)), plan)
        assert not bool(torch.isfinite(back.values_F).all())


@each_codec
def test_a_variance_never_turns_negative(text: str, layout: Layout) -> None:
    plan, base = plan_of(text, layout), layout.empty()
    base.values_F.copy_(torch.rand(layout.num_floats, generator=rng.torch_generator(3)) * 1e-3)
    change = ModelState(-base.values_F, torch.tensor([1]))
    back = decode(encode(change, plan, rng.generator(0)), plan)
    where = layout.variances_V
    assert (base.values_F[where] + back.values_F[where] >= 0).all()


@each_codec
def test_any_bytes_of_the_size_are_read_or_refused(text: str, layout: Layout) -> None:
    plan = plan_of(text, layout)
    for seed in range(20):
        data = rng.generator(seed).bytes(plan.num_bytes)
        with np.errstate(all="ignore"):
            try:
                got = decode(data, plan)
            except UpdateRejected:
                assert plan.codec.share < 1, "only positions can be wrong"
                continue
            assert got.values_F.numel() == layout.num_floats
    for wrong in (b"", b"x" * (plan.num_bytes - 1), b"x" * (plan.num_bytes + 1)):
        with pytest.raises(UpdateRejected, match="wrong payload size"):
            decode(wrong, plan)
