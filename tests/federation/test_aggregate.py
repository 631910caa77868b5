"""The fixed-point mean: by hand, in any order of arrival, at any weight."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg.federation.aggregate import MAX_VALUE, FixedPointMean, by_magnitude

Floats = npt.NDArray[np.float32]

values = st.floats(-MAX_VALUE, MAX_VALUE, width=32)
clients = st.lists(
    st.tuples(st.lists(values, min_size=3, max_size=3), st.integers(1, 10**9)),
    min_size=1,
    max_size=8,
)


def opened(pairs: list[tuple[Floats, int]]) -> FixedPointMean:
    weights = {f"car-{k}": weight for k, (_, weight) in enumerate(pairs)}
    return FixedPointMean(pairs[0][0].size, weights)


def fold(pairs: list[tuple[Floats, int]], silent: Sequence[tuple[Floats, int]] = ()) -> Floats:
    """The mean of some updates, in a cohort in which others do not answer."""
    mean = opened([*pairs, *silent])
    for k, (vector, _) in enumerate(pairs):
        mean.add(f"car-{k}", vector)
    return mean.finish()


def fedavg(pairs: list[tuple[Floats, int]]) -> npt.NDArray[np.float64]:
    """Sum of n_k x_k over sum of n_k, as flwr.server.strategy.aggregate has it, in float64."""
    total = sum(weight for _, weight in pairs)
    layers = [vector.astype(np.float64) * weight for vector, weight in pairs]
    return np.sum(layers, axis=0) / total


def drawn(seed: int, count: int, size: int, scale: float = 0.01) -> list[tuple[Floats, int]]:
    generator = np.random.Generator(np.random.Philox(seed))
    return [
        (
            (generator.standard_normal(size) * scale).astype(np.float32),
            int(generator.integers(1, 500)),
        )
        for _ in range(count)
    ]


def test_by_hand() -> None:
    a, b = np.array([1, 2, 3], np.float32), np.array([5, 6, 7], np.float32)
    assert fold([(a, 1), (b, 3)]).tolist() == [4, 5, 6]


def test_of_one_client_is_its_own_update() -> None:
    vector = np.array([0.5, -2, 1024], np.float32)
    assert fold([(vector, 17)]).tolist() == vector.tolist()


@settings(max_examples=150, deadline=None)
@given(clients, st.data())
def test_the_bits_do_not_depend_on_the_order(
    drawn_clients: list[tuple[list[float], int]], data: st.DataObject
) -> None:
    pairs = [(np.array(v, np.float32), w) for v, w in drawn_clients]
    shuffled = data.draw(st.permutations(pairs))
    assert fold(pairs).tobytes() == fold(shuffled).tobytes()


def test_the_bits_do_not_depend_on_the_order_of_many() -> None:
    pairs = drawn(1, count=40, size=40_000)
    reference = fold(pairs).tobytes()
    generator = np.random.Generator(np.random.Philox(2))
    for _ in range(10):
        order = generator.permutation(len(pairs))
        assert fold([pairs[i] for i in order]).tobytes() == reference


@settings(max_examples=150, deadline=None)
@given(clients)
def test_equals_the_float64_mean(drawn_clients: list[tuple[list[float], int]]) -> None:
    pairs = [(np.array(v, np.float32), w) for v, w in drawn_clients]
    exact = fedavg(pairs)
    # 1e-9 of the sum, half a unit in the last place of the float32 answer.
    np.testing.assert_allclose(fold(pairs), exact, rtol=2.0**-24, atol=1e-9)


@pytest.mark.parametrize("size", [1, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_equals_fedavg_at_every_chunk_boundary(size: int) -> None:
    pairs = drawn(size, count=20, size=size, scale=1e-3)
    exact = fedavg(pairs)
    assert np.abs(fold(pairs) - exact).max() < 1e-9
    assert fold(pairs).dtype == np.float32


def test_part_of_the_cohort_gives_the_mean_of_that_part() -> None:
    pairs = drawn(3, count=10, size=1000)
    got = fold(pairs[:9], pairs[9:])
    np.testing.assert_allclose(got, fedavg(pairs[:9]), rtol=2.0**-24, atol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_thousand_extreme_updates_do_not_overflow(sign: int) -> None:
    vector = np.array([MAX_VALUE, -MAX_VALUE, 0.0], np.float32) * sign
    assert fold([(vector, 1)] * 1000).tolist() == vector.tolist()
    assert fold([(vector, 10**9)] * 1000).tolist() == vector.tolist()
    # One client holding all of the enrolled weight is the largest single term.
    assert fold([(vector, 10**9)]).tolist() == vector.tolist()


def test_extremes_that_cancel() -> None:
    vector = np.full(5, MAX_VALUE, np.float32)
    assert fold([(vector, 7), (-vector, 7)] * 500).tolist() == [0.0] * 5


def test_weights_of_billions_of_pixels() -> None:
    pairs = [(vector, weight * 10**9) for vector, weight in drawn(4, count=30, size=100)]
    np.testing.assert_allclose(fold(pairs), fedavg(pairs), rtol=2.0**-24, atol=1e-9)


def test_a_light_client_beside_heavy_ones_is_kept_to_the_documented_step() -> None:
    light, heavy = np.array([1.0], np.float32), np.array([0.0], np.float32)
    got = float(fold([(light, 1), (heavy, 10**6)])[0])
    assert got == pytest.approx(1 / (10**6 + 1), abs=2.0**-37 + 1e-12)


@pytest.mark.parametrize("claimed", [10**9, 1 << 40, (1 << 53) - 1])
def test_who_enrols_with_most_of_the_weight_and_never_answers_takes_no_bits(claimed: int) -> None:
    pairs = drawn(6, count=31, size=500, scale=1e-3)
    silent = (np.zeros(500, np.float32), claimed)
    got, exact = fold(pairs, [silent]), fedavg(pairs)
    np.testing.assert_allclose(got, exact, rtol=2.0**-23, atol=1e-9)
    assert got.tobytes() == fold(pairs[::-1], [silent]).tobytes()


def test_weights_of_all_magnitudes_in_one_mean() -> None:
    pairs = [(v, 1 << 5 * k) for k, (v, _) in enumerate(drawn(7, count=11, size=32_770))]
    for answered in (pairs, pairs[:9], pairs[:3], pairs[2:3], pairs[::3]):
        silent = [pair for pair in pairs if all(pair is not other for other in answered)]
        got = fold(answered, silent)
        np.testing.assert_allclose(got, fedavg(answered), rtol=2.0**-23, atol=2.0**-26)
        assert got.tobytes() == fold(answered[::-1], silent).tobytes()


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_updates_of_all_magnitudes_do_not_overflow(sign: int) -> None:
    vector = np.array([MAX_VALUE, -MAX_VALUE, 0.0], np.float32) * sign
    assert fold([(vector, 1 << 5 * k) for k in range(11)]).tolist() == vector.tolist()


def test_weights_that_are_not_far_apart_are_one_sum() -> None:
    cohort = {f"car-{k}": 1000 for k in range(5000)} | {"light": 5, "heavy": 900_000}
    assert set(by_magnitude(cohort).values()) == {0}
    assert by_magnitude({}) == {}


def test_memory_does_not_grow_with_the_number_of_clients() -> None:
    size = 200_000
    vector = np.ones(size, np.float32)
    peaks = []
    for count in (2, 60):
        tracemalloc.start()
        mean = opened([(vector, 1)] * count)
        for k in range(count):
            mean.add(f"car-{k}", vector)
        mean.finish()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    # One int64 sum (two float32 models), which becomes the answer, and chunks.
    assert peaks[1] < 2 * vector.nbytes + 1_000_000


@pytest.mark.parametrize("size", [1, 2, 3, 32_768, 32_769, 70_001])
def test_the_mean_takes_over_half_of_the_sum_s_memory(size: int) -> None:
    pairs = drawn(size, count=3, size=size)
    mean = opened(pairs)
    for k, (vector, _) in enumerate(pairs):
        mean.add(f"car-{k}", vector)
    taken = mean.finish()
    assert taken.dtype == np.float32
    assert taken.shape == (size,)
    assert np.abs(taken - fedavg(pairs)).max() < 1e-8
    owner = taken.base
    while owner.base is not None:
        owner = owner.base
    assert owner.nbytes == 8 * ((size + 1) // 2)
    with pytest.raises(AssertionError):
        mean.finish()


def test_the_updates_themselves_are_left_alone() -> None:
    vector = np.array([0.1, 0.2, 0.3], np.float32)
    before = vector.tobytes()
    fold([(vector, 2), (vector, 3)])
    assert vector.tobytes() == before


def test_subnormals_vanish_without_a_warning() -> None:
    vector = np.array([1e-42, -1e-42, 1e-20], np.float32)
    assert fold([(vector, 1), (vector, 2)]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("weight", [0, -1])
def test_weights_that_are_none_are_our_own_bug(weight: int) -> None:
    mean = FixedPointMean(1, {"a": 10, "b": weight})
    with pytest.raises(AssertionError):
        mean.add("b", np.zeros(1, np.float32))
