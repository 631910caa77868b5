"""Rules of scenarios: no image is lost, in whatever order they come; and each rule by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg import rng
from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19, LabelSpace
from fleetseg.data.partition.rules import RULES, Held, Images, RuleSettings, subsets_of
from fleetseg.data.sample import Sample
from fleetseg.errors import ConfigError


def fleet_of(
    cities: dict[str, int], space: LabelSpace = CAMVID_11, seed: int = 0, shown: float = 0.5
) -> Images:
    """So many images of each city, each of them showing about that share of the classes."""
    samples = [
        Sample(
            f"d/train/{c}-{n}", "d", "train", f"{c}-{n}.png", None, c, city=c, sequence=c, frame=n
        )
        for c, count in cities.items()
        for n in range(count)
    ]
    generator = rng.generator(seed, purpose="test")
    shape = len(samples), space.num_classes
    pixels_NC = generator.integers(1, 1000, shape) * (generator.random(shape) < shown)
    features_ND = generator.normal(size=(len(samples), 3)).astype(np.float32)
    return Images(samples, space, pixels_NC, features_ND)


def shuffled(images: Images, seed: int) -> Images:
    order = rng.generator(seed, purpose="order").permutation(len(images.samples))
    return Images(
        [images.samples[n] for n in order],
        images.space,
        images.histograms_NC[order],
        images.features_ND[order],
    )


def names_in(images: Images, held: Held) -> dict[str, list[str]]:
    return {client: [images.samples[n].id for n in numbers] for client, numbers in held.items()}


fleets = st.dictionaries(
    st.sampled_from(["ulm", "jena", "bochum", "weimar"]), st.integers(1, 25), min_size=1
)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(cities=fleets, clients=st.integers(1, 12), seed=st.integers(0, 99), shown=st.floats(0.2, 1))
def test_every_image_is_with_one_client_and_their_order_plays_no_part(
    rule: str, cities: dict[str, int], clients: int, seed: int, shown: float
) -> None:
    images = fleet_of(cities, seed=seed, shown=shown)
    wanted = RuleSettings(clients, min_size=1, clusters=4, seed=seed)
    try:
        held = RULES[rule].held(images, wanted)
    except ConfigError:
        too_many = clients > len(images.samples)
        too_few = rule in ("heterogeneous", "classes") and clients < max(len(cities), 11)
        assert too_many or too_few or not images.histograms_NC.any()
        return
    dealt = [n for numbers in held.values() for n in numbers]
    assert sorted(dealt) == list(range(len(images.samples)))
    assert 0 < len(held) <= clients
    assert all(held.values())
    other = shuffled(images, seed)
    again = names_in(other, RULES[rule].held(other, wanted))
    assert {c: sorted(ids) for c, ids in again.items()} == {
        c: sorted(ids) for c, ids in names_in(images, held).items()
    }


@pytest.mark.parametrize("rule", RULES)
def test_another_seed_is_another_split(rule: str) -> None:
    images = fleet_of({"ulm": 30, "jena": 30})
    one, other = (RULES[rule].held(images, RuleSettings(12, seed=seed)) for seed in (0, 1))
    assert one != other


def test_uniform_clients_are_of_one_size() -> None:
    held = RULES["uniform"].held(fleet_of({"ulm": 20, "jena": 11}), RuleSettings(4))
    assert sorted(map(len, held.values())) == [7, 8, 8, 8]


def test_heterogeneous_clients_hold_one_city_by_hand() -> None:
    # FedDrive cuts each city into 8 times N // 8 and loses the rest: 174 in Aachen, 6 of them.
    images = fleet_of({"aachen": 174, "bochum": 96})
    held = RULES["heterogeneous"].held(images, RuleSettings(16))
    cities = {c: {images.samples[n].city for n in numbers} for c, numbers in held.items()}
    assert all(len(names) == 1 for names in cities.values())
    sizes = {c: len(numbers) for c, numbers in held.items()}
    assert (
        sorted(size for c, size in sizes.items() if c.startswith("aachen-")) == [21] * 2 + [22] * 6
    )
    assert [size for c, size in sizes.items() if c.startswith("bochum-")] == [12] * 8
    frames = [images.samples[n].frame for n in held["bochum-01"]]
    assert frames != list(range(12))  # not a stretch of the drive


def test_heterogeneous_gives_the_largest_cities_the_clients_that_are_left_over() -> None:
    held = RULES["heterogeneous"].held(fleet_of({"a": 4, "b": 9, "c": 6}), RuleSettings(5))
    assert Counter(client[0] for client in held) == {"a": 1, "b": 2, "c": 2}


def test_fewer_clients_than_cities_are_refused_with_the_cities() -> None:
    with pytest.raises(
        ConfigError, match="images of one domain only; got 2, expected at least 3: a, b, c"
    ):
        RULES["heterogeneous"].held(fleet_of({"a": 4, "b": 9, "c": 6}), RuleSettings(2))


def test_class_imbalance_skews_the_classes() -> None:
    images = fleet_of({"ulm": 200}, shown=0.2)

    def skew(rule: str) -> float:
        held = RULES[rule].held(images, RuleSettings(8, alpha=0.1, min_size=5))
        shares = [images.histograms_NC[list(n)].sum(axis=0) for n in held.values()]
        shares_KC = np.stack([share / share.sum() for share in shares])
        return float(shares_KC.std(axis=0).mean())

    assert skew("class_imbalance") > 2 * skew("uniform")
    held = RULES["class_imbalance"].held(images, RuleSettings(8, alpha=0.1, min_size=5))
    assert min(map(len, held.values())) >= 5


def test_each_class_is_labelled_on_images_that_show_it_by_hand() -> None:
    images = fleet_of({"ulm": 8}, shown=0)
    sky, car = CAMVID_11.classes.index("sky"), CAMVID_11.classes.index("car")
    images.histograms_NC[:6, sky] = 5
    images.histograms_NC[5:7, car] = 1  # rarest first: image 5 shows both and goes to the cars
    held = RULES["classes"].held(images, RuleSettings(4))
    ids = {client: sorted(numbers) for client, numbers in held.items()}
    assert sorted(ids["car-01"] + ids["car-02"]) == [5, 6]
    assert sorted(ids["sky-01"] + ids["sky-02"]) == [0, 1, 2, 3, 4, 7]  # 7 shows nothing
    assert subsets_of(held, RULES["classes"], CAMVID_11) == {
        "car-01": ["car"], "car-02": ["car"], "sky-01": ["sky"], "sky-02": ["sky"],
    }  # fmt: skip


def test_fedsegs_sizes_on_cityscapes() -> None:
    """Trains are on 142 of 2975 images there: 142, 17 times 156, and what is left with one."""
    images = fleet_of({"all": 2975}, CITYSCAPES_19, shown=0.95)
    images.histograms_NC[:, CITYSCAPES_19.classes.index("road")] = 9
    train = CITYSCAPES_19.classes.index("train")
    images.histograms_NC[:, train] = 0
    images.histograms_NC[100:242, train] = 9
    held = RULES["classes"].held(images, RuleSettings(152))
    sizes: Counter[str] = Counter()
    for client, numbers in held.items():
        sizes[client.rpartition("-")[0]] += len(numbers)
    assert (sizes["train"], sizes["road"]) == (142, 181)
    assert sorted(sizes.values()) == [142] + [156] * 17 + [181]
    assert len(held) == 152
    assert {len(n) for c, n in held.items() if c.startswith("train-")} == {17, 18}


def test_classes_with_a_space_in_their_name_find_their_way_back() -> None:
    images = fleet_of({"ulm": 38}, CITYSCAPES_19, shown=1.0)
    subsets = subsets_of(
        RULES["classes"].held(images, RuleSettings(19)), RULES["classes"], CITYSCAPES_19
    )
    assert {name for (name,) in subsets.values()} == set(CITYSCAPES_19.classes)
    assert not any(" " in client for client in subsets)
    assert subsets_of({"a-01": (0,)}, RULES["uniform"], CITYSCAPES_19) == {}


def test_clusters_of_features_are_shared_out_not_labels() -> None:
    images = fleet_of({"ulm": 120})
    images.features_ND[:] = 0
    images.features_ND[:60, 0] = 10  # two worlds
    wanted = RuleSettings(6, alpha=0.02, clusters=2, min_size=2)
    held = RULES["embedding"].held(images, wanted)
    mixed = [c for c, n in held.items() if len({k < 60 for k in n}) == 2]
    assert len(mixed) <= 2
    spread = RULES["embedding"].held(images, RuleSettings(6, alpha=1000.0, clusters=2))
    assert all(7 <= sum(k < 60 for k in n) <= 13 for n in spread.values())


def test_too_many_clients_for_the_images_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"too few images for 6 clients; got 11, expected at least 6 x 2.*Reduce --clients",
    ):
        RULES["embedding"].held(fleet_of({"ulm": 11}), RuleSettings(6))
