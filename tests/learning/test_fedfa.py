"""FedFA on a vehicle: features are perturbed as the authors do, and measured for the server."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.errors import ModelError
from fleetseg.learning.batches import Batch
from fleetseg.learning.fedfa import (
    FEATURES,
    SPREAD,
    FeatureNoise,
    feature_sizes,
    gamma_of,
    perturbed,
    perturbing,
    style_of,
)
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import LocalResult, train_locally
from fleetseg.models.build import wrap
from fleetseg.models.segmenter import Segmenter

CPU = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (16, 16)
CONTEXT = RoundContext(seed=5, round=2, total_rounds=3, client_id="car")
ALWAYS = {"probability": 1.0, "stages": (2,)}
CHANNELS = 4  # of the network's stage of stride 2


def normal(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=rng.torch_generator(seed))


def test_drawn_statistics_by_hand() -> None:
    """Two images, two channels, two pixels: (0, 2) has a mean of 1 and a deviation of 1."""
    pixels = [[[0.0, 2.0], [10.0, 30.0]], [[3.0, 7.0], [0.0, 8.0]]]
    x = torch.tensor(pixels).view(2, 2, 1, 2)
    style_SND = style_of(x)
    expected = torch.tensor([[[1.0, 20.0], [5.0, 4.0]], [[1.0, 10.0], [2.0, 4.0]]])
    torch.testing.assert_close(style_SND, expected, rtol=1e-5, atol=1e-5)
    # Means vary over vehicles by 1 and 1/3: r = 1/2 and 1/4, in units of their mean 4/3 and 2/3.
    gamma_SD = gamma_of(torch.tensor([[1.0, 1 / 3], [0.0, 0.0]]))
    torch.testing.assert_close(gamma_SD, torch.tensor([[4 / 3, 2 / 3], [1.0, 1.0]]))
    noise_SND = torch.tensor([[[1.0, -1.0], [0.0, 0.5]], [[1.0, -0.5], [-1.0, 0.0]]])
    made = perturbed(x, style_SND, noise_SND, gamma_SD).view(2, 2, 2)
    # Over images means vary by 8 and 128, deviations by 1/2 and 18; all of that times gamma + 1.
    low, high = math.sqrt(7 / 3 * 8), math.sqrt(5 / 3 * 128)
    mean = torch.tensor([[1 + low, 20 - high], [5.0, 4 + high / 2]])
    sigma = torch.tensor([[1.0 + 1, 10.0 - 3], [2.0 - 1, 4.0]])
    expected = torch.stack([mean - sigma, mean + sigma], dim=2)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def authors_form(x: Tensor, noise_SND: Tensor, spread_SD: Tensor) -> Tensor:
    """Their layer in plain tensors; Bessel's correction within an image cancels out."""
    mean, std = x.mean((2, 3)), (x.var((2, 3)) + 1e-6).sqrt()
    drawn = []
    for style, noise, spread in zip((mean, std), noise_SND, spread_SD, strict=True):
        ratio = 1 / (1 + 1 / (spread + 1e-6))
        gamma = x.shape[1] * ratio / sum(ratio)
        drawn.append(style + noise * ((gamma + 1) * (style.var(0) + 1e-6)).sqrt())
    beta, alpha = (statistic[:, :, None, None] for statistic in drawn)
    return (x - mean[:, :, None, None]) / std[:, :, None, None] * alpha + beta


def test_it_is_the_authors_form_with_their_gradient_through_statistics() -> None:
    x = (normal(3, 4, 5, 6) * torch.tensor([1.0, 3.0, 0.2, 9.0])[:, None, None]).requires_grad_()
    noise_SND, spread_SD = normal(2, 3, 4, seed=4), normal(2, 4, seed=5).abs()
    made = perturbed(x, style_of(x), noise_SND, gamma_of(spread_SD))
    expected = authors_form(x, noise_SND, spread_SD)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (made, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)
    cut = perturbed(x, style_of(x).detach(), noise_SND, gamma_of(spread_SD))
    assert not torch.allclose(torch.autograd.grad(cut.square().sum(), x)[0], theirs, rtol=0.1)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_what_is_not_known_yet_weighs_all_channels_alike(spread: float) -> None:
    """The authors' buffers start at 1, ours at 0."""
    torch.testing.assert_close(gamma_of(torch.full((2, 5), spread)), torch.ones(2, 5))


def test_no_vehicle_can_drive_noise_beyond_the_number_of_channels() -> None:
    gamma_SD = gamma_of(torch.tensor([[128.0**2, 0.0, 0.0]]))
    assert 0 <= float(gamma_SD.min()) <= float(gamma_SD.max()) <= 3.0 + 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_of_nought_is_the_identity_bit_for_bit(dtype: torch.dtype) -> None:
    x = normal(3, 4, 5, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    made = perturbed(x, style_of(x), torch.zeros(2, 3, 4), torch.ones(2, 4))
    assert made.dtype == dtype
    assert torch.equal(made, x)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_one_pixel_a_map_is_no_nan() -> None:
    x = normal(3, 4, 1, 1).requires_grad_()
    made = perturbed(x, style_of(x), normal(2, 3, 4), torch.ones(2, 4))
    made.sum().backward()
    assert x.grad is not None
    assert made.isfinite().all()
    assert x.grad.isfinite().all()


# In training


def network(*, norm: bool = True) -> Segmenter:
    with rng.torch_default(0, purpose="fedfa-test"):
        return wrap(nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1),
            nn.BatchNorm2d(CHANNELS) if norm else nn.Identity(),
            nn.Conv2d(CHANNELS, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1),
        ), 3)  # fmt: skip


def pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = rng.generator(count)
    return [
        (draw.integers(0, 256, (*SIZE_HW, 3), np.uint8), draw.integers(0, 3, SIZE_HW, np.uint8))
        for _ in range(count)
    ]


def inputs(extras: dict[str, Tensor] | None = None, **training: object) -> LocalInputs:
    settings = TrainingConfig(**{"batch_size": 4, **training})
    return LocalInputs(CONTEXT, settings, SIZE_HW, CPU, extras_T=extras or {})


def round_of(
    extras: dict[str, Tensor] | None = None, **training: object
) -> tuple[LocalResult, Tensor]:
    model = network()
    result = train_locally(model, pairs(6), inputs(extras, local_steps=3, **training))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return result, torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(extras: dict[str, Tensor] | None = None, **training: object) -> Tensor:
    return round_of(extras, **training)[1]


def test_a_round_depends_on_its_context_and_what_was_sent() -> None:
    plain, one, same = trained(), trained(fedfa=ALWAYS), trained(fedfa=ALWAYS)
    assert torch.equal(one, same)
    assert not torch.equal(one, plain)
    with rng.torch_default(99, purpose="anything"):
        assert torch.equal(trained(fedfa=ALWAYS), one)
    even, uneven = torch.zeros(2 * CHANNELS), torch.arange(2.0 * CHANNELS)
    assert torch.equal(trained({SPREAD: even}, fedfa=ALWAYS), one)
    assert not torch.equal(trained({SPREAD: uneven}, fedfa=ALWAYS), one)


def test_without_it_no_bit_moves_and_nothing_is_sent() -> None:
    result, parameters = round_of(fedfa={"probability": 0.0, "stages": (64,)})
    assert torch.equal(parameters, trained())
    assert result.extra_changes_T == {}
    assert feature_sizes(network(), TrainingConfig(), SIZE_HW) == {}


def test_batches_of_one_get_no_noise_but_are_measured() -> None:
    result, parameters = round_of(fedfa=ALWAYS, batch_size=1)
    assert torch.equal(parameters, trained(batch_size=1))
    assert result.extra_changes_T[FEATURES].abs().min() > 0


@pytest.mark.parametrize("objective", ["sam", "moon", "fedspeed"])
def test_objectives_with_passes_of_their_own(objective: str) -> None:
    one, same = (trained(fedfa=ALWAYS, objective=objective) for _ in range(2))
    assert torch.equal(one, same)
    assert one.isfinite().all()
    assert not torch.equal(one, trained(objective=objective))


def test_a_second_pass_over_a_batch_draws_as_the_first_and_is_not_measured() -> None:
    """SAM with rho = 0 takes its step at the same place: it is plain training, perturbed or not."""
    (once, plain), (twice, still) = (
        round_of(fedfa=ALWAYS), round_of(fedfa=ALWAYS, objective="sam", sam={"rho": 0.0}),
    )  # fmt: skip
    assert torch.equal(plain, still)
    assert torch.equal(once.extra_changes_T[FEATURES], twice.extra_changes_T[FEATURES])


def test_a_vehicle_s_statistics_are_its_own_whatever_the_fleet_s_mean_is() -> None:
    """The authors' server overwrites them with the mean that it sends."""
    fleet_V = torch.linspace(-3, 3, 2 * CHANNELS)
    (alone, one), (among, same) = (
        round_of(fedfa=ALWAYS), round_of({FEATURES: fleet_V}, fedfa=ALWAYS),
    )  # fmt: skip
    assert torch.equal(one, same)
    own_V = among.extra_changes_T[FEATURES] + fleet_V
    torch.testing.assert_close(own_V, alone.extra_changes_T[FEATURES], rtol=1e-5, atol=1e-6)


def measuring(probability: float = 1.0) -> FeatureNoise:
    noise = FeatureNoise.of(network(), inputs(fedfa={**ALWAYS, "probability": probability}))
    assert noise is not None
    return noise


def test_statistics_are_a_running_mean_over_batches_by_hand() -> None:
    """Of 1, 2 and 6 with weights 0.9801, 0.99 and 1; another pass and an overflow do not count."""
    noise = measuring()
    maps = {0: 1.0, 1: 2.0, 2: math.inf, 3: 6.0}
    for noise.step, value in maps.items():
        for passed in (value, 50.0):
            noise.change(0, torch.full((1, CHANNELS, 2, 2), passed))
    mean_D, deviation_D = noise.changes()[FEATURES].view(2, CHANNELS)
    expected = (0.9801 * 1 + 0.99 * 2 + 6) / (0.9801 + 0.99 + 1)
    torch.testing.assert_close(mean_D, torch.full((CHANNELS,), expected))
    torch.testing.assert_close(deviation_D, torch.full((CHANNELS,), 1e-3))  # the root of eps


def test_what_was_never_measured_is_the_fleet_s_and_differences_are_bounded() -> None:
    noise = measuring()
    assert noise.changes()[FEATURES].tolist() == [0.0] * 2 * CHANNELS
    noise.change(0, torch.full((1, CHANNELS, 2, 2), -1e4))
    assert noise.changes()[FEATURES][0] == -128


def test_steps_differ_are_measured_and_predictions_are_unaffected() -> None:
    model, images_NCHW = (
        network(norm=False),
        torch.rand(4, 3, *SIZE_HW, generator=rng.torch_generator(2)),
    )
    keys, plain = list(model.state_dict()), model.eval()(images_NCHW)
    noise, seen = measuring(), list[Tensor]()
    model.net[0].register_forward_hook(lambda _, __, made: seen.append(made.detach()))
    batches = enumerate([Batch(torch.zeros(0), torch.zeros(0))] * 2)
    with perturbing(model, noise, batches) as numbered:
        assert list(model.state_dict()) == keys
        made = []
        for step, _ in numbered:
            logits = model.train()(images_NCHW)[0]
            assert torch.equal(logits, model(images_NCHW)[0]), f"another pass of step {step}"
            made.append(logits)
        assert not torch.equal(made[0], made[1])
        assert torch.equal(model.eval()(images_NCHW), plain)
    assert torch.equal(model.train()(images_NCHW)[0], plain)
    features = seen[0]
    own_V = torch.cat([features.mean((0, 2, 3)), features.std((2, 3), correction=0).mean(0)])
    torch.testing.assert_close(noise.changes()[FEATURES], own_V, rtol=1e-4, atol=1e-5)


def test_how_often_a_stage_is_perturbed_is_as_asked_for() -> None:
    noise, x = measuring(0.3), normal(4, CHANNELS, 2, 2)
    moved = 0
    for noise.step in range(300):
        moved += not torch.equal(noise.change(0, x), x)
    assert 60 < moved < 120


def test_the_vectors_have_two_numbers_for_each_channel_of_each_place() -> None:
    training = TrainingConfig(fedfa={"probability": 0.5, "stages": (2, 4)})
    sizes = feature_sizes(build_two_stages(), training, SIZE_HW)
    assert sizes == {"0.mean": 4, "0.deviation": 4, "1.mean": 6, "1.deviation": 6}


def build_two_stages() -> Segmenter:
    return wrap(nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(6, 3, 3, stride=2, padding=1),
    ), 3)  # fmt: skip


def test_a_network_without_such_stages_is_refused() -> None:
    training = TrainingConfig(fedfa={"probability": 0.5, "stages": (2, 8)})
    with pytest.raises(ModelError, match="stride 8"):
        feature_sizes(network(), training, SIZE_HW)
