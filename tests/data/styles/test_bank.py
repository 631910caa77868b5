"""The bank, and what is drawn from it: the vehicle first, never one's own, labels untouched."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.styles.pictures import picture

from fleetseg.config import StyleConfig
from fleetseg.data.styles import Restyling, bank_of, num_owners
from fleetseg.data.styles.bank import owner_number

LAB = StyleConfig(kind="lab", probability=1.0)
SIZE = (36, 48)


def styles(count: int, level: float) -> np.ndarray:
    """Styles of one client, told apart by their first number."""
    made = np.full((count, 2, 3), level, np.float32)
    made[:, 0, 0] += np.arange(count) / 1000
    return made


def drawn(restyling: Restyling, count: int) -> Counter[float]:
    generator = np.random.Generator(np.random.Philox(0))
    chosen = [restyling.style(row) for row in restyling.draw(count, generator)]
    return Counter(round(float(s.numbers[1, 0])) if s else -1 for s in chosen)


def test_the_client_is_drawn_first_whoever_has_more_images() -> None:
    bank = bank_of({"a": styles(1, 10), "b": styles(90, 20), "c": styles(9, 30)}, 10_000)
    counts = drawn(Restyling.of(LAB, bank, SIZE), 6000)
    assert set(counts) == {10, 20, 30}
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_a_client_s_own_style_is_none_of_the_others() -> None:
    bank = bank_of({"a": styles(3, 10), "b": styles(90, 20), "c": styles(9, 30)}, 10_000)
    counts = drawn(Restyling.of(LAB, bank, SIZE, "b"), 3000)
    assert set(counts) == {10, 30}
    assert abs(counts[10] - 1500) < 150


def test_styles_of_one_client_are_drawn_evenly() -> None:
    bank = bank_of({"a": styles(4, 10), "b": styles(1, 20)}, 10_000)
    restyling = Restyling.of(LAB, bank, SIZE, "b")
    numbers = restyling.draw(4000, np.random.Generator(np.random.Philox(0)))
    firsts = Counter(float(restyling.style(row).numbers[0, 0]) for row in numbers)  # type: ignore[union-attr]
    assert len(firsts) == 4
    assert all(abs(count - 1000) < 150 for count in firsts.values())


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_so_many_images_take_one_on(probability: float) -> None:
    config = LAB.model_copy(update={"probability": probability})
    bank = bank_of({"a": styles(1, 10), "b": styles(1, 20)}, 100)
    stays = drawn(Restyling.of(config, bank, SIZE), 2000)[-1]
    assert abs(stays - 2000 * (1 - probability)) < 100


def test_how_far_is_drawn_for_cfsi_alone() -> None:
    window = {"a": np.full((1, 3, 3, 5), 9, np.float32)}
    cfsi = StyleConfig(kind="cfsi", probability=1.0)
    half = np.array([0, 0, 0, 0.5])
    style = Restyling.of(cfsi, bank_of(window, 1000), SIZE).style(half)
    assert style is not None
    assert style.share == 0.5
    other = Restyling.of(LAB, bank_of({"a": styles(1, 5)}, 1000), SIZE).style(half)
    assert other is not None
    assert other.share == 1.0


@pytest.mark.parametrize("told", [{}, {"me": styles(3, 10)}], ids=["nobody", "me alone"])
def test_with_nobody_else_images_stay(told: dict[str, np.ndarray]) -> None:
    restyling = Restyling.of(LAB, bank_of(told, 100), SIZE, "me")
    image = picture(0, *SIZE)
    assert restyling.restyled(image, np.zeros(4)) is image
    assert num_owners(bank_of(told, 100)) == len(told)


def test_a_bank_is_the_same_in_any_order_and_as_bytes() -> None:
    told = {name: styles(2, k) for k, name in enumerate("abcd")}
    bank = bank_of(told, 10_000)
    assert bank.dtype == np.float32
    assert bank.shape == (8, 7)
    assert (bank == bank_of(dict(reversed(told.items())), 10_000)).all()
    again = np.array(bank.tolist(), np.float32)  # as JSON carries it
    assert (again == bank).all()
    assert Restyling.of(LAB, again, SIZE, "b").style(np.zeros(4)) is not None


def test_no_name_is_in_it() -> None:
    numbers = [owner_number(f"car-{k}") for k in range(500)]
    assert len(set(numbers)) == 500
    assert all(0 <= x < 2**24 and np.float32(x) == x for x in numbers)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(7, 400))
def test_a_bank_has_no_more_than_there_is_room_for(counts: list[int], most: int) -> None:
    told = {f"car-{k}": styles(count, k) for k, count in enumerate(counts)}
    bank = bank_of(told, most)
    assert 1 <= bank.size <= most
    rows = Counter(bank[:, 0].tolist())
    if most >= 7 * len(told):
        assert len(rows) == len(told)
    fewer = {owner_number(c): len(rows) for c, rows in told.items()}
    assert all(n <= fewer[owner] for owner, n in rows.items())
    assert max(rows.values()) <= max(1, most // 7 // len(rows))


def test_the_seam_for_a_server() -> None:
    """With a bank and no name, a server gives its own images any vehicle's style."""
    train: list[Any] = [(picture(k, *SIZE, low=10, high=60), None) for k in range(3)]
    from fleetseg.data.styles import measured

    bank = bank_of({"car": measured(train, LAB, SIZE)}, 1000)
    bright = picture(9, *SIZE, low=150, high=250)
    dark = Restyling.of(LAB, bank, SIZE).restyled(bright, np.zeros(4))
    assert dark.mean() == pytest.approx(np.mean([image.mean() for image, _ in train]), abs=5)
