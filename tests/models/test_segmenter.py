"""The one shape of every network: normalisation, padding, logits at full resolution."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.models.segmenter import Segmenter, crop_back


class Probe(nn.Module):
    """Gives back what the network saw, at 1 / `scale`, as its logits."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.seen_hw: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.seen_hw = tuple(x.shape[2:])
        return functional.avg_pool2d(x, self.scale)


class Fixed(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


def _images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng.torch_generator(0))


def _plain(net: nn.Module, stride: int = 1) -> Segmenter:
    return Segmenter(
        net, name="probe", num_classes=3, mean=(0, 0, 0), std=(1, 1, 1), stride=stride
    ).eval()


def test_normalises_by_channel_and_keeps_constants_out_of_the_state() -> None:
    segmenter = Segmenter(
        Probe(), name="probe", num_classes=3, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)
    ).eval()
    logits = segmenter(torch.ones(1, 3, 1, 1))
    assert logits.flatten().tolist() == [1.0, 3.0, 0.5]
    assert not segmenter.state_dict()


def test_survives_copies_and_other_processes() -> None:
    segmenter = Segmenter(nn.Conv2d(3, 2, 1), name="c", num_classes=2)
    x = _images(1, 3, 4, 4)
    for twin in (copy.deepcopy(segmenter), pickle.loads(pickle.dumps(segmenter))):
        assert torch.equal(twin.eval()(x), segmenter.eval()(x))


def test_training_mode_always_gives_a_tuple_and_eval_mode_never() -> None:
    main, aux = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 2, 2)
    for output, count in ((main, 1), ((main, aux), 2), ([main, aux], 2),
                          ({"out": main, "aux": aux}, 2), ({"out": main}, 1)):  # fmt: skip
        segmenter = _plain(Fixed(output))
        trained = segmenter.train()(_images(1, 3, 4, 4))
        assert isinstance(trained, tuple)
        assert len(trained) == count
        assert torch.equal(trained[0], main)
        assert torch.equal(segmenter.eval()(_images(1, 3, 4, 4)), main)


@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.sampled_from([1, 4, 8, 16]))
@settings(max_examples=40, deadline=None)
def test_padding_is_undone_exactly_at_full_resolution(height: int, width: int, stride: int) -> None:
    net = Probe()
    images = _images(1, 3, height, width)
    assert torch.equal(_plain(net, stride)(images), images)
    assert net.seen_hw == (-(-height // stride) * stride, -(-width // stride) * stride)


@given(
    rows=st.integers(1, 8), columns=st.integers(1, 8), scale=st.sampled_from([2, 4, 8]),
    factor=st.sampled_from([2, 4]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_padding_is_undone_exactly_at_the_networks_resolution(
    rows: int, columns: int, scale: int, factor: int
) -> None:
    images = _images(1, 3, rows * scale, columns * scale)
    logits = _plain(Probe(scale), stride=scale * factor)(images)
    assert torch.equal(logits, functional.avg_pool2d(images, scale))


def test_crop_back_interpolates_where_logits_do_not_end_with_the_image() -> None:
    # A ramp along x, sampled at pixel centres 3.5, 11.5, 19.5, 27.5 of 32; the image is 20 wide.
    ramp = torch.tensor([3.5, 11.5, 19.5, 27.5]).view(1, 1, 1, 4)
    cut = crop_back(ramp, (8, 32), (8, 20))
    assert cut.shape == (1, 1, 8, 20)
    assert cut[0, 0, 0, 4:].tolist() == pytest.approx(list(range(4, 20)))


def test_very_small_images_are_padded_too() -> None:
    assert _plain(Probe(8), stride=32)(_images(1, 3, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (torch.zeros(1, 4, 8, 8), "shape (1, 4, 8, 8)"),
        (torch.zeros(1, 8, 8), "shape (1, 8, 8)"),
        (torch.zeros(2, 3, 8, 8), "shape (2, 3, 8, 8)"),
        ("logits", "str"),
        ({"masks": torch.zeros(1, 3, 8, 8)}, "dict"),
    ],
)
def test_wrong_output_says_what_and_what_was_expected(output: object, got: str) -> None:
    with pytest.raises(ModelError) as caught:
        _plain(Fixed(output))(_images(1, 3, 8, 8))
    text = str(caught.value)
    assert f"network 'probe' returns the wrong shape; got {got}" in text
    assert "logits of shape (1, 3, H, W)" in text


def test_no_output_is_an_error() -> None:
    with pytest.raises(ModelError, match="returns nothing"):
        _plain(Fixed(()))(_images(1, 3, 8, 8))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
)
def test_wrong_input_is_named(images: Tensor) -> None:
    with pytest.raises(ModelError, match=r"unusable input.*expected floating point"):
        _plain(Probe())(images)
