"""Amplitudes of low frequencies: against numpy's whole spectrum, by hand, and the known traps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.styles.pictures import picture

from fleetseg.data.styles.spectrum import amplitudes, with_amplitudes

SIZES = [(36, 48), (35, 47), (7, 9), (3, 3)]


def windowed(image_HWC: npt.ArrayLike, half_hw: tuple[int, int]) -> npt.NDArray[np.complex128]:
    """The window of the whole, shifted spectrum: the definition, with nothing left out."""
    spectrum = np.fft.fft2(np.asarray(image_HWC, np.float64), axes=(0, 1), norm="forward")
    height, width = spectrum.shape[:2]
    shifted = np.fft.fftshift(spectrum, axes=(0, 1))
    rows = slice(height // 2 - half_hw[0], height // 2 + half_hw[0] + 1)
    columns = slice(width // 2 - half_hw[1], width // 2 + half_hw[1] + 1)
    return shifted[rows, columns].transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("half", [(0, 0), (1, 1), (3, 2)])
def test_amplitudes_are_those_of_the_whole_spectrum(
    size: tuple[int, int], half: tuple[int, int]
) -> None:
    half = (min(half[0], (size[0] - 1) // 2), min(half[1], (size[1] - 1) // 2))
    image = picture(1, *size)
    own = amplitudes(image, half)
    assert own.dtype == np.float32
    assert own == pytest.approx(np.abs(windowed(image, half)), abs=1e-4)


def test_a_window_of_one_has_27_numbers() -> None:
    assert amplitudes(picture(0), (1, 1)).size == 27


def test_by_hand() -> None:
    """A level of 100, and a wave of 40 along the width: half of that at 1 and at -1 cycles."""
    wave = 100 + 40 * np.cos(2 * np.pi * np.arange(16) / 16)
    image = np.broadcast_to(np.rint(wave)[None, :, None], (8, 16, 3)).astype(np.uint8)
    channel = amplitudes(image, (1, 1))[0]
    assert channel == pytest.approx(np.array([[0, 0, 0], [20, 100, 20], [0, 0, 0]]), abs=0.1)
    dimmed = with_amplitudes(image, np.broadcast_to(channel / 2, (3, 3, 3)).astype(np.float32))
    assert dimmed == pytest.approx(np.broadcast_to(wave / 2, (3, 8, 16)), abs=0.6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(SIZES), st.integers(0, 4), st.integers(0, 4))
def test_a_window_of_one_s_own_is_the_identity(
    seed: int, size: tuple[int, int], up: int, across: int
) -> None:
    half = (min(up, (size[0] - 1) // 2), min(across, (size[1] - 1) // 2))
    image = picture(seed, *size)
    same = with_amplitudes(image, amplitudes(image, half))
    assert np.abs(same - image.transpose(2, 0, 1)).max() < 0.01


@pytest.mark.parametrize(("half", "share"), [((1, 1), 1.0), ((2, 3), 1.0), ((3, 4), 0.3)])
def test_amplitudes_are_the_target_s_and_phases_stay(half: tuple[int, int], share: float) -> None:
    """After the inverse and a forward transform, before anything is clipped."""
    image, other = picture(1), picture(2, low=20, high=120)
    own, target = amplitudes(image, half), amplitudes(other, half)
    changed_CHW = with_amplitudes(image, target, share)
    after = windowed(changed_CHW.transpose(1, 2, 0), half)
    assert np.abs(after) == pytest.approx(own + share * (target - own), abs=1e-3)
    strong = np.abs(after) > 0.01
    turned = np.exp(1j * (np.angle(after) - np.angle(windowed(image, half))))[strong]
    assert turned == pytest.approx(np.ones(strong.sum()), abs=0.01)


def test_what_is_not_in_the_window_stays() -> None:
    image, other = picture(1), picture(2, low=20, high=120)
    changed_CHW = with_amplitudes(image, amplitudes(other, (1, 1)))
    before = np.fft.fft2(image.astype(np.float64), axes=(0, 1), norm="forward")
    after = np.fft.fft2(changed_CHW.transpose(1, 2, 0), axes=(0, 1), norm="forward")
    outside = np.ones(before.shape[:2], bool)
    outside[np.ix_([0, 1, -1], [0, 1, -1])] = False
    assert np.abs(after - before)[outside].max() < 1e-4


def test_it_is_the_textbook_s() -> None:
    """FDA as it is written: amplitude and phase of all, the window replaced, the real part."""
    image, other, half = picture(3, low=0, high=255), picture(4, low=0, high=40), (1, 1)
    spectrum = np.fft.fftshift(np.fft.fft2(image.astype(np.float64), axes=(0, 1)), axes=(0, 1))
    theirs = np.fft.fftshift(np.fft.fft2(other.astype(np.float64), axes=(0, 1)), axes=(0, 1))
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    middle = np.s_[17:20, 23:26]
    amplitude[middle] = np.abs(theirs)[middle]
    mixed = np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(0, 1))
    textbook = np.fft.ifft2(mixed, axes=(0, 1)).real
    ours = with_amplitudes(image, amplitudes(other, half))
    assert ours == pytest.approx(textbook.transpose(2, 0, 1), abs=0.01)
    assert (textbook < 0).any()  # where |.| in the place of the real part, a trap, would differ


def test_a_style_fits_images_of_another_size() -> None:
    """Twice the size, the same picture: the same style."""
    small = picture(5)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    style = amplitudes(large, (1, 1))
    assert style == pytest.approx(amplitudes(small, (1, 1)), abs=0.3)
    assert with_amplitudes(small, style) == pytest.approx(small.transpose(2, 0, 1), abs=1.5)


def test_a_picture_without_a_phase_gets_the_level() -> None:
    black, other = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 90, np.uint8)
    assert with_amplitudes(black, amplitudes(other, (1, 1))) == pytest.approx(
        np.full((3, 8, 8), 90.0), abs=0.01
    )


def test_a_window_larger_than_the_spectrum_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="within the spectrum"):
        amplitudes(picture(0, 4, 4), (2, 1))
