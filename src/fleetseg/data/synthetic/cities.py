"""Five invented cities: buildings, paving, plants and traffic of each."""

from __future__ import annotations

from dataclasses import dataclass

from fleetseg.data.synthetic.canvas import Rgb


@dataclass(frozen=True, slots=True)
class City:
    """The character of one city; lengths in metres, densities per 100 m of street."""

    side: int  # side of the road that traffic drives on: +1 right, -1 left
    lanes: int  # per direction
    lane_m: float
    bike_lane_m: float  # 0 = none
    parking_m: float  # 0 = none
    verge_m: float  # grass between kerb and pavement
    pavement_m: float
    garden_m: float  # between pavement and houses
    walls: tuple[Rgb, ...]
    wall_grain: float  # 0 plaster, 1 brick, 2 glass tower
    roofs: tuple[Rgb, ...]
    gable: float  # share of houses with a pitched roof
    floors: tuple[int, int]
    house_m: tuple[float, float]  # width along the street
    gap: float  # chance of a gap between two houses
    window: tuple[float, float, float]  # pitch_m, width share, height share
    shops: float  # share of houses with a shop
    road: Rgb
    paving: Rgb
    paving_m: float  # size of a paving slab
    line: Rgb  # of the centre line
    tree: str
    leaves: tuple[Rgb, ...]
    tree_every_m: float
    fence: float  # share of house fronts with a fence
    fence_colour: Rgb
    lamp_every_m: float
    signs: float
    cars: float  # driving, each way
    parked: float  # share of parking places taken
    big: float  # share of vans, buses and trucks
    pedestrians: float
    bicyclists: float
    mount_m: float  # camera height
    bonnet: bool  # whether the ego car is visible
    tint: Rgb  # white balance of this city's cameras


CITIES: dict[str, City] = {
    # An old town: warm plaster, tiled gables, narrow and full of people on foot.
    "amber": City(
        side=1, lanes=1, lane_m=3.0, bike_lane_m=0.0, parking_m=2.0, verge_m=0.0, pavement_m=3.2,
        garden_m=0.0,
        walls=((0.82, 0.70, 0.48), (0.84, 0.58, 0.40), (0.88, 0.82, 0.70), (0.72, 0.47, 0.36),
               (0.80, 0.76, 0.60), (0.60, 0.64, 0.60)),
        wall_grain=0.0, roofs=((0.56, 0.27, 0.19), (0.46, 0.22, 0.17), (0.40, 0.28, 0.24)),
        gable=0.9, floors=(2, 4), house_m=(7.0, 12.0), gap=0.06, window=(2.1, 0.42, 0.55),
        shops=0.5, road=(0.40, 0.38, 0.36), paving=(0.56, 0.53, 0.49), paving_m=0.5,
        line=(0.85, 0.85, 0.82), tree="round", leaves=((0.24, 0.36, 0.14), (0.34, 0.40, 0.14)),
        tree_every_m=38.0, fence=0.12, fence_colour=(0.22, 0.22, 0.24), lamp_every_m=26.0,
        signs=9.0, cars=1.6, parked=0.62, big=0.12, pedestrians=30.0, bicyclists=4.0,
        mount_m=1.45, bonnet=False, tint=(1.03, 1.00, 0.95),
    ),
    # A garden suburb: detached houses, hedges, bike lanes and most of the bicyclists.
    "birch": City(
        side=1, lanes=1, lane_m=3.1, bike_lane_m=1.8, parking_m=0.0, verge_m=1.8, pavement_m=2.4,
        garden_m=4.0,
        walls=((0.60, 0.22, 0.18), (0.86, 0.84, 0.78), (0.72, 0.62, 0.40), (0.40, 0.48, 0.54),
               (0.54, 0.34, 0.26)),
        wall_grain=1.0, roofs=((0.26, 0.26, 0.29), (0.40, 0.24, 0.20), (0.32, 0.30, 0.28)),
        gable=1.0, floors=(1, 2), house_m=(9.0, 14.0), gap=0.75, window=(2.8, 0.46, 0.48),
        shops=0.03, road=(0.36, 0.37, 0.39), paving=(0.52, 0.46, 0.42), paving_m=0.3,
        line=(0.86, 0.86, 0.84), tree="birch",
        leaves=((0.30, 0.40, 0.16), (0.40, 0.42, 0.18), (0.20, 0.33, 0.15)),
        tree_every_m=11.0, fence=0.7, fence_colour=(0.80, 0.78, 0.72), lamp_every_m=34.0,
        signs=8.0, cars=1.2, parked=0.0, big=0.12, pedestrians=9.0, bicyclists=22.0,
        mount_m=1.50, bonnet=True, tint=(0.98, 1.01, 1.00),
    ),
    # A southern coast: white and pastel cubes, palms, wires, left-hand traffic, many vans.
    "coral": City(
        side=-1, lanes=1, lane_m=3.6, bike_lane_m=0.0, parking_m=2.2, verge_m=0.0, pavement_m=3.6,
        garden_m=1.5,
        walls=((0.92, 0.90, 0.86), (0.90, 0.72, 0.66), (0.66, 0.82, 0.80), (0.93, 0.86, 0.62),
               (0.80, 0.78, 0.88), (0.88, 0.88, 0.84)),
        wall_grain=0.0, roofs=((0.70, 0.66, 0.62), (0.62, 0.42, 0.34)),
        gable=0.1, floors=(1, 4), house_m=(8.0, 16.0), gap=0.35, window=(3.0, 0.5, 0.42),
        shops=0.35, road=(0.50, 0.47, 0.44), paving=(0.70, 0.64, 0.56), paving_m=0.8,
        line=(0.90, 0.74, 0.22), tree="palm", leaves=((0.30, 0.44, 0.18), (0.40, 0.46, 0.20)),
        tree_every_m=16.0, fence=0.35, fence_colour=(0.74, 0.70, 0.64), lamp_every_m=30.0,
        signs=10.0, cars=2.6, parked=0.45, big=0.42, pedestrians=14.0, bicyclists=3.0,
        mount_m=1.70, bonnet=False, tint=(1.06, 1.03, 0.99),
    ),
    # A metropolis: glass and concrete towers over an avenue with two lanes each way.
    "delta": City(
        side=1, lanes=2, lane_m=3.4, bike_lane_m=0.0, parking_m=0.0, verge_m=0.0, pavement_m=4.5,
        garden_m=0.0,
        walls=((0.42, 0.50, 0.56), (0.58, 0.58, 0.57), (0.34, 0.38, 0.42), (0.66, 0.62, 0.56),
               (0.48, 0.44, 0.42)),
        wall_grain=2.0, roofs=((0.40, 0.40, 0.42),),
        gable=0.0, floors=(5, 22), house_m=(16.0, 30.0), gap=0.15, window=(1.7, 0.80, 0.70),
        shops=0.7, road=(0.30, 0.30, 0.32), paving=(0.60, 0.60, 0.60), paving_m=1.2,
        line=(0.92, 0.76, 0.20), tree="round", leaves=((0.22, 0.34, 0.18), (0.28, 0.38, 0.20)),
        tree_every_m=28.0, fence=0.08, fence_colour=(0.50, 0.52, 0.54), lamp_every_m=28.0,
        signs=10.0, cars=5.0, parked=0.0, big=0.25, pedestrians=24.0, bicyclists=3.0,
        mount_m=1.55, bonnet=True, tint=(0.95, 0.98, 1.03),
    ),
    # A mill town: dark brick terraces with chimneys, iron railings, left-hand traffic.
    "ember": City(
        side=-1, lanes=1, lane_m=3.0, bike_lane_m=0.0, parking_m=2.0, verge_m=0.0, pavement_m=2.8,
        garden_m=1.2,
        walls=((0.46, 0.26, 0.20), (0.52, 0.32, 0.24), (0.40, 0.30, 0.26), (0.58, 0.50, 0.42)),
        wall_grain=1.0, roofs=((0.26, 0.27, 0.31), (0.30, 0.28, 0.28)),
        gable=1.0, floors=(2, 3), house_m=(5.5, 7.5), gap=0.03, window=(2.6, 0.42, 0.5),
        shops=0.12, road=(0.33, 0.34, 0.35), paving=(0.46, 0.46, 0.45), paving_m=0.7,
        line=(0.86, 0.86, 0.86), tree="poplar", leaves=((0.20, 0.32, 0.14), (0.38, 0.34, 0.12)),
        tree_every_m=30.0, fence=0.6, fence_colour=(0.12, 0.13, 0.14), lamp_every_m=24.0,
        signs=8.0, cars=1.8, parked=0.65, big=0.15, pedestrians=14.0, bicyclists=6.0,
        mount_m=1.40, bonnet=False, tint=(0.96, 0.96, 0.95),
    ),
}  # fmt: skip


def road_half_m(city: City) -> float:
    """Metres from the street's middle to the kerb."""
    return city.lanes * city.lane_m + city.bike_lane_m + city.parking_m


def wall_line_m(city: City) -> float:
    """Metres from the street's middle to the house fronts."""
    return road_half_m(city) + city.verge_m + city.pavement_m + city.garden_m
