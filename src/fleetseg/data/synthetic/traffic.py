"""Moving objects on a street, and the whole scene at one moment.

Moving things belong to cells that travel at their stream's speed; like the blocks of the street, a
cell is a pure function of (seed, drive, stream, cell number).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from fleetseg.data.synthetic.canvas import FAR_M
from fleetseg.data.synthetic.cities import CITIES, City, road_half_m
from fleetseg.data.synthetic.street import (
    BLOCK_M,
    CROSSING_HALF_M,
    Drive,
    Thing,
    a_car,
    a_person,
    block,
    crossing_m,
)

CELL_M = 24.0


def scene(drive: Drive, z_m: float, time_s: float) -> list[Thing]:
    """Return all things between the camera at z and the far end, in no particular order."""
    first = math.floor((z_m - 30.0) / BLOCK_M)
    last = math.floor((z_m + FAR_M) / BLOCK_M)
    things = [thing for number in range(first, last + 1) for thing in block(drive, number)]
    things.extend(traffic(drive, z_m, time_s))
    return [t for t in things if t.z_m < z_m + FAR_M and t.z_m + t.length_m > z_m]


class Stream(NamedTuple):
    """Things that move along the street at one speed, spread over cells of CELL_M."""

    kind: str
    number: int  # distinguishes streams of one kind
    speed: float  # m/s along z
    per_100_m: float
    s_m: tuple[float, float]  # range of places across the street


@lru_cache(maxsize=16)
def streams(name: str) -> tuple[Stream, ...]:
    """Return a city's streams: cars and bicyclists each way, people on both pavements."""
    city = CITIES[name]
    side, lane = city.side, city.lane_m
    found: list[Stream] = []
    for number in range(city.lanes):
        s = side * (number + 0.5) * lane
        found.append(Stream("car", number, 6.0 + 1.5 * number, city.cars, (s, s)))
        found.append(Stream("car", -1 - number, -8.0, city.cars, (-s, -s)))
    edge = road_half_m(city) - city.parking_m - (city.bike_lane_m / 2 if city.bike_lane_m else 0.5)
    for heading, share in ((1, 0.6), (-1, 0.4)):
        s = side * heading * edge
        rate = city.bicyclists * share
        found.append(Stream("bicyclist", heading, 3.6 * heading, rate, (s - 0.3, s + 0.3)))
    kerb = road_half_m(city) + city.verge_m
    for number in range(4):
        left, heading = (-1, 1)[number % 2], (-1, 1)[number // 2]
        near, far = left * (kerb + 0.6), left * (kerb + city.pavement_m - 0.3)
        places = (min(near, far), max(near, far))
        found.append(Stream("pedestrian", number, 1.3 * heading, city.pedestrians / 4, places))
    return tuple(found)


@lru_cache(maxsize=4096)
def cell(drive: Drive, stream: Stream, number: int) -> tuple[Thing, ...]:
    """Return the content of one cell of a stream; z counts from the cell's start."""
    city = CITIES[drive.city]
    rng = drive.generator(f"stream {stream.kind} {stream.number}", number)
    wished = stream.per_100_m * CELL_M / 100.0
    heading = 1 if stream.speed > 0 else -1
    if stream.kind == "car":  # at most one, so that none overlap
        if rng.random() >= wished:
            return ()
        z = float(rng.uniform(0.0, CELL_M - 12.0))
        return (a_car(city, rng, stream.s_m[0], z, heading),)
    things = []
    for _ in range(int(rng.poisson(wished))):
        s, z = float(rng.uniform(*stream.s_m)), float(rng.uniform(0.0, CELL_M))
        things.append(a_person(rng, s, z, stream.kind, heading))
    return tuple(things)


def traffic(drive: Drive, z_m: float, time_s: float) -> Iterator[Thing]:
    """Yield everything that moves and is near enough to be visible at this time."""
    city = CITIES[drive.city]
    own_lane = city.side * (city.lanes - 0.5) * city.lane_m
    for stream in streams(drive.city):
        drift = stream.speed * time_s
        first = math.floor((z_m - 14.0 - drift) / CELL_M)
        last = math.floor((z_m + FAR_M - drift) / CELL_M)
        for number in range(first, last + 1):
            for thing in cell(drive, stream, number):
                z = thing.z_m + number * CELL_M + drift
                gap = 9.0 if thing.kind == "car" and thing.s_m == own_lane else 1.5
                if z > z_m + gap:
                    yield thing._replace(z_m=z)
    yield from _crossing(drive, city, z_m, time_s)


def _crossing(drive: Drive, city: City, z_m: float, time_s: float) -> Iterator[Thing]:
    """Yield people on zebra crossings and bicyclists coming out of side streets."""
    first = math.floor(z_m / BLOCK_M)
    half = road_half_m(city)
    for number in range(first, first + 3):
        rng = drive.generator("crossing people", number)
        zebra = crossing_m(drive, number) - CROSSING_HALF_M - 2.5
        kinds = ["pedestrian"] * int(rng.poisson(city.pedestrians / 10.0))
        kinds += ["bicyclist"] * int(rng.poisson(city.bicyclists / 8.0))
        for kind in kinds:
            walks = kind == "pedestrian"
            way = 1 if rng.random() < 0.5 else -1
            loop = 2 * half + (20.0 if walks else 44.0)
            start = loop * float(rng.random())
            s = (start + (1.3 if walks else 4.0) * time_s) % loop - loop / 2
            aside = float(rng.uniform(-1.0, 1.0))
            z = zebra + aside if walks else zebra + 6.5 + 2.0 * aside
            person = a_person(rng, way * s, z, kind, 2 * way)
            if z > z_m + 5.0 and (not walks or abs(s) < half + 1.5):
                yield person
