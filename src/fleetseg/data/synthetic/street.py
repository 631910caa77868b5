"""Static objects along a street: blocks of houses, plants, street furniture and parked cars.

A street is endless and consists of blocks between side streets. Each block is a pure function of
(seed, drive, block number), so any frame of a drive can be painted on its own and still matches
its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fleetseg.data.synthetic.canvas import Rgb
from fleetseg.data.synthetic.cities import CITIES, City, road_half_m, wall_line_m
from fleetseg.rng import generator

BLOCK_M = 72.0
CROSSING_HALF_M = 4.0


class Drive(NamedTuple):
    """A street: everything that the content of a block depends on."""

    seed: int
    split: str
    city: str
    condition: str

    def generator(self, purpose: str, number: int = 0) -> np.random.Generator:
        """Return the generator of one purpose and block on this street."""
        owner = f"synthetic/{self.split}/{self.city}-{self.condition}"
        return generator(self.seed, number, owner, purpose)


class Thing(NamedTuple):
    """One object on the street; (s, z) is its foot, or the near end of a long object."""

    kind: str
    s_m: float
    z_m: float
    width_m: float = 0.0  # across the street
    height_m: float = 0.0
    length_m: float = 0.0  # along the street
    colour: Rgb = (0.5, 0.5, 0.5)
    accent: Rgb = (0.3, 0.3, 0.3)
    variant: int = 0
    heading: int = 1  # +1 away from the camera, -1 towards it, +-2 across to the right or left
    phase: float = 0.0  # 0-1, random for each thing


CAR_COLOURS: tuple[Rgb, ...] = (
    (0.78, 0.78, 0.80), (0.90, 0.90, 0.90), (0.12, 0.12, 0.14), (0.34, 0.35, 0.38),
    (0.56, 0.10, 0.10), (0.12, 0.20, 0.42), (0.20, 0.34, 0.28), (0.62, 0.56, 0.44),
    (0.48, 0.50, 0.54), (0.84, 0.68, 0.16),
)  # fmt: skip
CLOTHES: tuple[Rgb, ...] = (
    (0.10, 0.11, 0.16), (0.22, 0.26, 0.40), (0.58, 0.14, 0.14), (0.70, 0.66, 0.58),
    (0.24, 0.34, 0.24), (0.42, 0.30, 0.22), (0.82, 0.82, 0.80), (0.80, 0.56, 0.14),
    (0.16, 0.16, 0.16), (0.44, 0.44, 0.48), (0.40, 0.20, 0.42),
)  # fmt: skip


@lru_cache(maxsize=1024)
def crossing_m(drive: Drive, number: int) -> float:
    """Return where the middle of the side street before block `number` is, along the street."""
    return number * BLOCK_M + 12.0 * float(drive.generator("crossing", number).random())


def pick(rng: np.random.Generator, choices: tuple[Rgb, ...], spread: float = 0.05) -> Rgb:
    """Return one of the colours, slightly varied."""
    red, green, blue = choices[int(rng.integers(len(choices)))]
    gain = 1.0 + spread * (2.0 * float(rng.random()) - 1.0) * 2.0
    tint = spread * (2.0 * float(rng.random()) - 1.0)
    return red * gain * (1.0 + tint), green * gain, blue * gain * (1.0 - tint)


@lru_cache(maxsize=1024)
def block(drive: Drive, number: int) -> tuple[Thing, ...]:
    """Return all static objects between two side streets."""
    city = CITIES[drive.city]
    rng = drive.generator("block", number)
    start = crossing_m(drive, number) + CROSSING_HALF_M + 1.0
    end = crossing_m(drive, number + 1) - CROSSING_HALF_M - 1.0
    things: list[Thing] = []
    for side in (-1, 1):
        things.extend(_houses(city, rng, side, start, end))
        things.extend(_planting(city, rng, side, start, end))
        things.extend(_furniture(city, rng, side, start, end))
        things.extend(_parked(city, rng, side, start, end))
    return tuple(things)


def _houses(
    city: City, rng: np.random.Generator, side: int, start: float, end: float
) -> Iterator[Thing]:
    line = wall_line_m(city)
    z = start
    while z < end - 4.0:
        width = min(float(rng.uniform(*city.house_m)), end - z)
        floors = int(rng.integers(city.floors[0], city.floors[1] + 1))
        floor_m = 2.9 + 0.5 * float(rng.random())
        back = 0.8 * float(rng.random()) if city.garden_m else 0.0
        yield Thing(
            "house", side * (line + back), z, 10.0, floors * floor_m + 0.5, width,
            pick(rng, city.walls), pick(rng, city.roofs),
            variant=int(rng.random() < city.gable) + 2 * int(rng.random() < city.shops),
            phase=float(rng.random()),
        )  # fmt: skip
        if rng.random() < city.fence and city.garden_m:
            yield from _fence(city, rng, side, z, width)
        z += width
        if rng.random() < city.gap:
            z += float(rng.uniform(2.5, 6.0))
            yield Thing(
                "bush", side * (line + 3.0), z - 2.5, 3.0, float(rng.uniform(1.2, 4.0)), 0.0,
                pick(rng, city.leaves), phase=float(rng.random()),
            )  # fmt: skip


def _fence(
    city: City, rng: np.random.Generator, side: int, z: float, width: float
) -> Iterator[Thing]:
    line = side * (wall_line_m(city) - city.garden_m + 0.2)
    hedge = city.tree == "birch" and rng.random() < 0.4
    height = float(rng.uniform(0.9, 1.5))
    colour = pick(rng, city.leaves if hedge else (city.fence_colour,))
    kind = "hedge" if hedge else "fence"
    variant = int(rng.integers(2))
    gate = width * float(rng.uniform(0.3, 0.6))
    for near, length in ((z, gate), (z + gate + 1.1, width - gate - 1.1)):
        if length > 1.0:
            yield Thing(
                kind, line, near, 0.0, height, length, colour, variant=variant,
                phase=float(rng.random()),
            )  # fmt: skip


def _planting(
    city: City, rng: np.random.Generator, side: int, start: float, end: float
) -> Iterator[Thing]:
    kerb = road_half_m(city)
    z = start + city.tree_every_m * float(rng.random())
    while z < end:
        s = kerb + (0.5 * city.verge_m if city.verge_m else 0.8) + 0.3 * float(rng.random())
        height = float(rng.uniform(4.5, 9.0))
        yield Thing(
            city.tree, side * s, z, height * float(rng.uniform(0.45, 0.65)), height, 0.0,
            pick(rng, city.leaves, 0.12), phase=float(rng.random()),
        )  # fmt: skip
        z += city.tree_every_m * float(rng.uniform(0.7, 1.4))


def _furniture(
    city: City, rng: np.random.Generator, side: int, start: float, end: float
) -> Iterator[Thing]:
    kerb = road_half_m(city) + 0.45
    z = start + city.lamp_every_m * (0.25 if side > 0 else 0.75)
    while z < end:
        yield Thing("lamp", side * kerb, z, 0.0, 7.0 if city.lanes == 1 else 9.0, variant=side,
                    colour=(0.36, 0.38, 0.38), phase=float(rng.random()))  # fmt: skip
        z += city.lamp_every_m
    for _ in range(int(rng.poisson(city.signs * (end - start) / 200.0))):
        z = float(rng.uniform(start, end))
        yield Thing(
            "sign", side * (kerb + 0.1), z, 0.35, float(rng.uniform(2.2, 2.8)),
            variant=int(rng.integers(6)), phase=float(rng.random()),
            heading=-1 if side == city.side else 1,
        )  # fmt: skip
    if city.lanes > 1 or rng.random() < 0.35:
        near = side == city.side
        yield Thing(
            "light", side * kerb, start - 1.5 if not near else end + 0.5, 0.0, 3.2,
            variant=int(rng.integers(3)), heading=-1 if near else 1,
        )  # fmt: skip
    if rng.random() < 0.6:
        z = float(rng.uniform(start, end))
        yield Thing("bin", side * (kerb + 0.3), z, 0.5, 1.0, 0.0, (0.20, 0.30, 0.24))
    if not city.garden_m and rng.random() < 0.5:  # guard rail at the kerb
        yield Thing("fence", side * (kerb - 0.2), end - 16.0, 0.0, 1.0, 14.0,
                    pick(rng, (city.fence_colour,)), variant=0)  # fmt: skip


def _parked(
    city: City, rng: np.random.Generator, side: int, start: float, end: float
) -> Iterator[Thing]:
    if not city.parking_m:
        return
    s = side * (road_half_m(city) - 0.5 * city.parking_m)
    z = start + 5.0
    while z < end - 8.0:
        z += 1.0 + 1.2 * float(rng.random())
        if rng.random() < city.parked:
            car = a_car(city, rng, s, z, 1 if side == city.side else -1)
            yield car._replace(phase=0.0)
            z += car.length_m
        else:
            z += 5.0


def a_car(city: City, rng: np.random.Generator, s: float, z: float, heading: int) -> Thing:
    """Make a car, van, bus or truck; variant 0 hatchback, 1 saloon, 2 estate, 3 van, 4 bus."""
    big = rng.random() < city.big
    variant = (3 if rng.random() < 0.7 else 4) if big else int(rng.integers(3))
    length = (3.9, 4.5, 4.7, 5.6, 10.5)[variant] * float(rng.uniform(0.95, 1.05))
    height = (1.48, 1.42, 1.68, 2.3, 3.0)[variant]
    width = (1.70, 1.78, 1.84, 2.0, 2.4)[variant]
    return Thing(
        "car", s, z, width, height, length, pick(rng, CAR_COLOURS), variant=variant,
        heading=heading, phase=float(rng.uniform(0.05, 1.0)),
    )  # fmt: skip


def a_person(rng: np.random.Generator, s: float, z: float, kind: str, heading: int) -> Thing:
    """Make a pedestrian or bicyclist."""
    height = float(rng.uniform(1.58, 1.88)) if rng.random() < 0.9 else float(rng.uniform(1.1, 1.4))
    return Thing(
        kind, s, z, 0.5, height, 0.0, pick(rng, CLOTHES, 0.08), pick(rng, CLOTHES, 0.08),
        variant=int(rng.integers(64)), heading=heading, phase=float(rng.random()),
    )  # fmt: skip
