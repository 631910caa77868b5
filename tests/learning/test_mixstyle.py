"""MixStyle: statistics are mixed as the paper says, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.errors import ModelError
from fleetseg.learning.batches import Batch
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.learning.mixstyle import mix_style, mixing
from fleetseg.models.build import wrap
from fleetseg.models.segmenter import Segmenter

CPU = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (16, 16)
CONTEXT = RoundContext(seed=5, round=2, total_rounds=3, client_id="car")
ALWAYS = {"probability": 1.0, "stages": (2,)}


def features(count: int = 3) -> Tensor:
    values = torch.rand(count, 4, 5, 6, generator=rng.torch_generator(1))
    scales = torch.tensor([1.0, 3.0, 0.2, 9.0])[:, None, None]
    return values * scales + torch.arange(count)[:, None, None, None]


def test_statistics_are_the_mixture_by_hand() -> None:
    """Two images of two pixels: (0, 2) has mean 1 and deviation 1, (10, 30) has 20 and 10."""
    both = torch.tensor([[0.0, 2.0], [10.0, 30.0]]).view(2, 1, 1, 2)
    made = mix_style(both, torch.tensor([0.25, 0.9]), torch.tensor([1, 0])).view(2, 2)
    # 0.25 x 1 + 0.75 x 20 = 15.25 and 7.75; 0.9 x 20 + 0.1 x 1 = 18.1 and 9.1
    expected = torch.tensor([[15.25 - 7.75, 15.25 + 7.75], [18.1 - 9.1, 18.1 + 9.1]])
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_it_is_the_authors_form_with_their_variance() -> None:
    """(x - mu) / sigma x sigma_mix + mu_mix, with Bessel's correction in the variance."""
    x, share_N, others_N = features(), torch.tensor([0.1, 0.5, 0.8]), torch.tensor([2, 0, 1])
    mu, sigma = x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-6).sqrt()
    lam = share_N.view(-1, 1, 1, 1)
    sigma_mix = sigma * lam + sigma[others_N] * (1 - lam)
    expected = (x - mu) / sigma * sigma_mix + mu * lam + mu[others_N] * (1 - lam)
    torch.testing.assert_close(mix_style(x, share_N, others_N), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_of_one_is_the_identity_bit_for_bit(dtype: torch.dtype) -> None:
    x = features().to(dtype)
    made = mix_style(x, torch.ones(3), torch.tensor([1, 2, 0]))
    assert made.dtype == dtype
    assert torch.equal(made, x)


def test_a_share_of_none_is_the_other_image_s_style() -> None:
    x = features()
    made = mix_style(x, torch.zeros(3), torch.tensor([1, 2, 0]))
    torch.testing.assert_close(made.mean((2, 3)), x.mean((2, 3))[[1, 2, 0]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.std((2, 3)), x.std((2, 3))[[1, 2, 0]], rtol=1e-3, atol=1e-4)


def test_gradients_do_not_flow_through_statistics() -> None:
    """Each gradient is the ratio of deviations; through them it would sum to nought over pixels."""
    x = features().requires_grad_()
    share_N, others_N = torch.tensor([0.0, 0.4, 1.0]), torch.tensor([1, 2, 0])
    mix_style(x, share_N, others_N).sum().backward()
    sigma = (x.detach().var((2, 3), correction=0) + 1e-6).sqrt()
    mixed = share_N[:, None] * sigma + (1 - share_N[:, None]) * sigma[others_N]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (mixed / sigma)[:, :, None, None].expand_as(x))


def test_one_pixel_a_map_is_no_nan_and_the_memory_order_stays() -> None:
    points = mix_style(features()[:, :, :1, :1], torch.full((3,), 0.5), torch.tensor([1, 2, 0]))
    assert points.isfinite().all()
    x = features().contiguous(memory_format=torch.channels_last)
    made = mix_style(x, torch.full((3,), 0.5), torch.tensor([1, 2, 0]))
    assert made.is_contiguous(memory_format=torch.channels_last)


# In training


def network(*, norm: bool = True) -> Segmenter:
    with rng.torch_default(0, purpose="mixstyle-test"):
        return wrap(nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 3, 1),
        ), 3)  # fmt: skip


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = rng.generator(count)
    return [
        (draw.integers(0, 256, (*SIZE_HW, 3), np.uint8), draw.integers(0, 3, SIZE_HW, np.uint8))
        for _ in range(count)
    ]


def nothing(count: int) -> list[Batch]:
    """Batches that nobody looks into."""
    return [Batch(torch.zeros(0), torch.zeros(0))] * count


def inputs(**training: object) -> LocalInputs:
    return LocalInputs(CONTEXT, TrainingConfig(**{"batch_size": 4, **training}), SIZE_HW, CPU)


def trained(count: int = 6, **training: object) -> Tensor:
    model = network()
    train_locally(model, pairs(count), inputs(local_steps=3, **training))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_round_depends_on_its_context_alone() -> None:
    plain, one, same = trained(), trained(mixstyle=ALWAYS), trained(mixstyle=ALWAYS)
    assert torch.equal(one, same)
    assert not torch.equal(one, plain)
    with rng.torch_default(99, purpose="anything"):
        assert torch.equal(trained(mixstyle=ALWAYS), one)


def test_without_it_no_bit_moves() -> None:
    off = {"probability": 0.0, "alpha": 3.0, "stages": (64,)}  # no such stage is looked for
    assert torch.equal(trained(mixstyle=off), trained())


def test_batches_of_one_are_left_alone() -> None:
    assert torch.equal(trained(mixstyle=ALWAYS, batch_size=1), trained(batch_size=1))


@pytest.mark.parametrize("objective", ["sam", "moon", "fedspeed"])
def test_objectives_with_passes_of_their_own(objective: str) -> None:
    one, same = (trained(mixstyle=ALWAYS, objective=objective) for _ in range(2))
    assert torch.equal(one, same)
    assert one.isfinite().all()
    assert not torch.equal(one, trained(objective=objective))


def test_a_second_pass_over_a_batch_mixes_as_the_first() -> None:
    """SAM with rho = 0 takes its step at the same place: it is plain training, mixed or not."""
    still = {"sam": {"rho": 0.0}}
    assert torch.equal(trained(mixstyle=ALWAYS, objective="sam", **still), trained(mixstyle=ALWAYS))


def test_steps_differ_and_predictions_are_unaffected() -> None:
    model, images_NCHW = (
        network(norm=False),
        torch.rand(4, 3, 16, 16, generator=rng.torch_generator(2)),
    )
    keys = list(model.state_dict())
    plain = model.eval()(images_NCHW)
    model.net[4].p = 0.0
    with mixing(model, inputs(mixstyle=ALWAYS), nothing(2)) as numbered:
        assert list(model.state_dict()) == keys
        made = []
        for step, _ in numbered:
            logits = model.train()(images_NCHW)[0]
            assert torch.equal(logits, model(images_NCHW)[0]), f"another pass of step {step}"
            made.append(logits)
        assert not torch.equal(made[0], made[1])
        assert torch.equal(model.eval()(images_NCHW), plain)
    assert torch.equal(model.train()(images_NCHW)[0], plain)


def test_how_often_a_stage_mixes_is_as_asked_for() -> None:
    model, images_NCHW = (
        network(norm=False),
        torch.rand(4, 3, 16, 16, generator=rng.torch_generator(2)),
    )
    plain = model.eval()(images_NCHW)
    model.net[4].p = 0.0
    model.train()
    with mixing(model, inputs(mixstyle={**ALWAYS, "probability": 0.3}), nothing(300)) as numbered:
        mixed = [not torch.equal(model(images_NCHW)[0], plain) for _ in numbered]
    assert 60 < sum(mixed) < 120


def test_a_network_without_such_stages_is_refused() -> None:
    with pytest.raises(ModelError, match="stride 8"):
        trained(mixstyle={"probability": 0.5, "stages": (2, 8)})
